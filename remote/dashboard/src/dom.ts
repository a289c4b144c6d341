/** The document, by hand: what comes from outside is set as text and never becomes markup. */

type Child = Node | string | null | undefined;

/** Return the element of the page with that id. */
export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

/** Return a new element. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  about: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) made.setAttribute(name, value);
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
}

/** Set an element's text, where it is another: what is written again is read out again, and a selection in it is lost. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute, or take it away, where that is a change. */
export function mark(element: Element, name: string, value: string | null): void {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Have `parent` hold one child for each item, in their order. Those of a key that is there already stay the same elements,
 * with their focus and what is open in them.
 */
export function keyed<T, E extends HTMLElement>(
  parent: HTMLElement,
  items: readonly T[],
  keyOf: (item: T) => string,
  create: (item: T) => E,
  update: (element: E, item: T) => void,
): void {
  const before = new Map<string, E>();
  for (const child of parent.children) before.set((child as E).dataset["key"] ?? "", child as E);
  let next: Element | null = parent.firstElementChild;
  const seen = new Set<string>();
  for (const item of items) {
    const key = keyOf(item);
    if (seen.has(key)) continue;
    seen.add(key);
    const element = before.get(key) ?? create(item);
    element.dataset["key"] = key;
    update(element, item);
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  for (const [key, element] of before) if (!seen.has(key)) element.remove();
}

/** Return a table of text, with a header for each column and row; numbers are `n`. */
export function table(caption: string, columns: readonly Column[], rows: readonly (readonly Child[])[]): HTMLTableElement {
  const head = make("tr", {});
  for (const [name, kind] of columns) head.append(make("th", { scope: "col", class: kind }, name));
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    row.forEach((cell, index) => {
      const about = { class: columns[index]?.[1] ?? "" };
      line.append(index === 0 ? make("th", { scope: "row", ...about }, cell) : make("td", about, cell));
    });
    body.append(line);
  }
  return make("table", {}, make("caption", { class: "unseen" }, caption), make("thead", {}, head), body);
}

/** A column's name, and `n` where it holds numbers. */
export type Column = readonly [string, "n" | "t"];

/** Return `content` in a box that scrolls sideways, also by keyboard. */
export function scroller(label: string, content: HTMLElement): HTMLElement {
  return make("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, content);
}
