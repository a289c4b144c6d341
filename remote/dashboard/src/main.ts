/** The dashboard: a feed comes in, every part of the page shows its share. */

import { Chart, type Line } from "./charts";
import { byId, make, mark, say } from "./dom";
import { Feed } from "./feed";
import { offerPlaces } from "./form";
import { perSecond, plural, seconds, short, span, usd, whole } from "./format";
import { problemFrom } from "./gateway";
import { showLost, showPaused, showState, showUnknown, tick } from "./headline";
import { askForKey, keyIsGood, onKey } from "./key";
import { know, lookOf } from "./palette";
import { showRecent } from "./recent";
import { showScans } from "./scans";
import { prepareForm } from "./submit";
import { showSubstrates } from "./substrates";
import type { Overview, Series, Steps } from "./types";

const BROWSERS: Readonly<Record<string, string>> = {
  connected: "Connected", idle: "Idle", running: "Running", under_way: "Jobs under way", checked: "Checked",
  agreed: "Agreed", tie_breaks: "Tie-breaks", banned: "Banned", rehanded: "Handed on", busy: "Refused, none free",
};

const done = new Chart("done-chart", { text: perSecond, stacked: true, empty: "no job was done in this time" });
const failed = new Chart("failed-chart", { text: perSecond, stacked: true, empty: "no job failed in this time" });
const latency = new Chart("latency-chart", { text: seconds, stacked: false, empty: "no attempt in this time" });
const cost = new Chart("cost-chart", { text: hourly, stacked: false, empty: "nothing was spent in this time" });

const feed = new Feed({
  overview: show,
  lost: (problem, error, waitMs) => {
    if (problem === null && error === null) showPaused("Paused while this page is hidden");
    else showLost(problem ?? problemFrom(error), waitMs);
  },
  unknown: showUnknown,
  closed: (problem) => {
    showPaused("A key is needed");
    askForKey(problem);
  },
});

prepareForm();
onKey(() => feed.start());
setInterval(tick, 1000);
feed.start();

function show(overview: Overview): void {
  keyIsGood();
  know(overview.substrates.map((one) => one.name));
  showState(overview);
  showFigures(overview);
  showCharts(overview.series);
  showSubstrates(overview.substrates);
  showScans(overview.scans);
  showRecent(overview.recent);
  showBrowsers(overview.browsers);
  showLinks(overview);
  offerPlaces(overview.substrates.map((one) => one.name));
}

function showFigures({ substrates, ledger, window_s }: Overview): void {
  const sum = (of: (one: Overview["substrates"][number]) => number | null) =>
    substrates.reduce((all, one) => all + (of(one) ?? 0), 0);
  figure("jobs-rate", perSecond(sum((one) => one.jobs.done_per_s)));
  figure("failed-rate", perSecond(sum((one) => one.jobs.failed_per_s)));
  figure("open-jobs", whole(ledger.open), late(ledger));
  figure("depth", whole(sum((one) => one.depth)), `${whole(sum((one) => one.in_flight))} running`);
  const slowest = substrates.toSorted((a, b) => (b.latency_s?.p95 ?? -1) - (a.latency_s?.p95 ?? -1))[0];
  const isKnown = slowest !== undefined && (slowest.latency_s?.p95 ?? null) !== null;
  figure("latency", seconds(slowest?.latency_s?.p95), isKnown ? `at ${slowest.name}` : "");
  figure("usd-rate", `${usd(sum((one) => one.usd_per_hour))}/h`);
  figure("usd", usd(sum((one) => one.usd)));
  say(byId("window", HTMLElement), `Rates and percentiles are of the last ${span(window_s)}; sums are of the last 24\u202fh.`);
}

function late(ledger: Overview["ledger"]): string {
  const parts = [
    ledger.overdue_s >= 1 ? `${span(ledger.overdue_s)} overdue` : "",
    ledger.resubmitted > 0 ? `${whole(ledger.resubmitted)} sent again` : "",
    ledger.given_up > 0 ? `${whole(ledger.given_up)} given up` : "",
  ];
  return parts.filter(Boolean).join(", ") || "none overdue";
}

function figure(id: string, text: string, more = ""): void {
  const place = byId(id, HTMLElement);
  const [main, small] = place.children;
  if (main !== undefined) say(main, text);
  if (small !== undefined) say(small, more);
}

function showCharts(series: Series): void {
  const rates = (counts: Readonly<Record<string, Steps>>): Line[] =>
    Object.entries(counts)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, values]) => ({ name, look: lookOf(name), values: values.map((value) => (value ?? 0) / series.step_s) }));
  const line = (name: string, colour: string, values: Steps): Line => ({ name, look: { colour, striped: false }, values });
  done.update(series, rates(series.done));
  failed.update(series, rates(series.failed));
  latency.update(series, [line("p95", "--wait", series.p95_s), line("p50", "--strong", series.p50_s)]);
  const spent = series.usd.map((value) => ((value ?? 0) * 3600) / series.step_s);
  cost.update(series, [line("all substrates", "--strong", spent)]);
}

function showBrowsers(browsers: Overview["browsers"]): void {
  byId("browsers-panel", HTMLElement).hidden = browsers === null;
  byId("lend-link", HTMLElement).hidden = browsers === null;
  if (browsers === null) return;
  const list = byId("browsers", HTMLElement);
  for (const [name, title] of Object.entries(BROWSERS)) {
    let place = list.querySelector<HTMLElement>(`[data-name="${name}"]`);
    place ??= list.appendChild(make("div", { "data-name": name }, make("dt", {}, title), make("dd")));
    say(place.lastElementChild as Element, whole(browsers[name] ?? null));
  }
  say(byId("browsers-said", HTMLElement), `${plural(browsers["connected"] ?? 0, "browser")} connected to this gateway`);
}

function showLinks({ links }: Overview): void {
  const places = { "flower-link": links.flower, "docs-link": links.docs, "metrics-link": links.metrics };
  for (const [id, url] of Object.entries(places)) {
    const link = byId(id, HTMLAnchorElement);
    // Whatever a configuration holds, a link leads to a page and runs nothing.
    const safe = url !== null && (url.startsWith("/") || /^https?:\/\//.test(url)) ? url : null;
    (link.closest("li") ?? link).hidden = safe === null;
    mark(link, "href", safe);
  }
}

function hourly(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : value === 0 ? "0" : `${short(value)}\u202fUSD/h`;
}
