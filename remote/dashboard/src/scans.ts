/** The scans that run: how far each is, how fast, and what it has cost. Their windows are not in the list of jobs. */

import { byId, keyed, make, mark, say } from "./dom";
import { ago, bytes, moment, percent, span, usd, whole } from "./format";
import { gatewayNow } from "./headline";
import type { Scan } from "./types";

const panel = byId("scans-panel", HTMLElement);
const list = byId("scans", HTMLElement);

/** Show them, the latest first. */
export function showScans(scans: readonly Scan[]): void {
  panel.hidden = scans.length === 0;
  keyed(list, scans, (one) => one.job_id, create, update);
}

function create(scan: Scan): HTMLElement {
  const name = make("b", { class: "what", title: scan.job_id }, scan.op);
  const bar = make("progress", { max: "1", "aria-label": `Scan ${scan.job_id}` });
  const facts = make("dl", { class: "figures small" });
  for (const title of ["Bytes", "Windows", "Rate", "Left", "Cost"]) {
    facts.append(make("div", {}, make("dt", {}, title), make("dd")));
  }
  const head = make("p", { class: "head" }, name, " ", make("span", { class: "url", title: scan.data_url }, scan.data_url));
  head.append(" ", make("time"));
  return make("li", {}, head, make("p", { class: "bar" }, bar, make("span")), facts);
}

function update(row: HTMLElement, { progress, since }: Scan): void {
  const share = progress.bytes_total === 0 ? 1 : progress.bytes_done / progress.bytes_total;
  const bar = row.querySelector("progress");
  if (bar !== null) mark(bar, "value", share.toFixed(4));
  const told = row.querySelector(".bar span");
  if (told !== null) say(told, percent(share));
  const time = row.querySelector("time");
  if (time !== null) {
    say(time, `begun ${ago(since, gatewayNow())}`);
    mark(time, "title", moment(since));
    mark(time, "datetime", new Date(since * 1000).toISOString());
  }
  const values = [
    `${bytes(progress.bytes_done)} of ${bytes(progress.bytes_total)}`,
    `${whole(progress.windows_done)} of ${whole(progress.windows)}`,
    progress.rate_bytes_per_s === null ? "\u2013" : `${bytes(progress.rate_bytes_per_s)}/s`,
    progress.eta_s === null ? "\u2013" : span(progress.eta_s),
    usd(progress.cost_usd),
  ];
  row.querySelectorAll("dd").forEach((place, index) => say(place, values[index] ?? ""));
}
