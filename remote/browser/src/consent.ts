/** The built-in question before a browser is lent: a modal dialog, for pages that have none of their own. */

const TEXT = [
  "May this page use a part of your computer for a while?",
  "It would fetch parts of public files and compute checksums and counts over them, inside the browser. It reads " +
    "nothing of yours. The places that it fetches from see your network address, and it uses electricity and your " +
    "connection.",
  "You can stop at any time; closing the page stops it too.",
] as const;

/** Ask with a dialog; resolves to whether it was accepted. Escape declines. */
export function askConsent(): Promise<boolean> {
  const dialog = document.createElement("dialog");
  dialog.className = "packetfs-consent";
  const [title, ...paragraphs] = TEXT;
  const heading = dialog.appendChild(document.createElement("h2"));
  heading.textContent = title;
  heading.id = "packetfs-consent-title";
  dialog.setAttribute("aria-labelledby", heading.id);
  for (const text of paragraphs) dialog.appendChild(document.createElement("p")).textContent = text;
  const form = dialog.appendChild(document.createElement("form"));
  form.method = "dialog";
  for (const [value, label] of [["no", "No"], ["yes", "Yes, lend it"]] as const) {
    const button = form.appendChild(document.createElement("button"));
    [button.value, button.textContent] = [value, label];
  }
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
