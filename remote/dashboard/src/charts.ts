/** Charts over the last minutes. Each has its values in words beneath it, and all of them in a table for who asks. */

import uPlot from "uplot";
import { byId, make, mark, say, table } from "./dom";
import { clock } from "./format";
import { colour, type Look } from "./palette";
import type { Steps } from "./types";

export interface Line {
  readonly name: string;
  readonly look: Look;
  readonly values: Steps;
}

export interface Times {
  readonly from: number;
  readonly step_s: number;
}

interface Kind {
  /** How a value reads, with its unit. */
  readonly text: (value: number | null | undefined) => string;
  /** Whether the lines stand on each other, so that the topmost is the sum. */
  readonly stacked: boolean;
  /** What is said where there is nothing to see. */
  readonly empty: string;
}

const HEIGHT = 150;
/** The charts of one key show the same moment. */
const TOGETHER = "charts";
const STEPPED = uPlot.paths.stepped === undefined ? {} : { paths: uPlot.paths.stepped({ align: 1 }) };

export class Chart {
  readonly #title: string;
  readonly #kind: Kind;
  readonly #plot: HTMLElement;
  readonly #legend = make("ul", { class: "legend" });
  readonly #when = make("p", { class: "clock" });
  readonly #empty: HTMLElement;
  readonly #more = make("details", { class: "values" }, make("summary", {}, "Values as a table"));
  #times: Times = { from: 0, step_s: 1 };
  #lines: readonly Line[] = [];
  #drawn = "";
  #chart: uPlot | null = null;

  constructor(id: string, kind: Kind) {
    const figure = byId(id, HTMLElement);
    this.#title = figure.querySelector("figcaption")?.textContent ?? "";
    this.#kind = kind;
    this.#empty = make("p", { class: "none" }, kind.empty);
    this.#plot = make("div", { class: "plot", role: "img" });
    figure.append(this.#when, make("div", { class: "ground" }, this.#plot, this.#empty), this.#legend, this.#more);
    new ResizeObserver(() => this.#resize()).observe(this.#plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw(true));
    this.#more.addEventListener("toggle", () => this.#tabulate());
  }

  /** Show these lines; of stacked ones, the first is the lowest. */
  update(times: Times, lines: readonly Line[]): void {
    this.#times = times;
    this.#lines = lines.filter((line) => line.values.some((value) => value !== null && value > 0));
    this.#empty.hidden = this.#lines.length > 0;
    this.#draw(false);
    this.#tell();
    mark(this.#plot, "aria-label", this.#summary());
  }

  #draw(anew: boolean): void {
    const drawn = JSON.stringify(this.#lines.map((line) => [line.name, line.look]));
    const data = this.#data();
    if (this.#chart !== null && drawn === this.#drawn && !anew) {
      this.#chart.setData(data);
      return;
    }
    this.#chart?.destroy();
    this.#drawn = drawn;
    this.#chart = new uPlot(this.#options(), data, this.#plot);
  }

  #data(): uPlot.AlignedData {
    const { from, step_s } = this.#times;
    const count = Math.max(1, ...this.#lines.map((line) => line.values.length));
    const times = Array.from({ length: count }, (_, index) => from + index * step_s);
    if (!this.#kind.stacked) return [times, ...this.#lines.map((line) => [...line.values])];
    const sums = times.map(() => 0);
    const stacked = this.#lines.map((line) =>
      times.map((_, index) => (sums[index] = (sums[index] ?? 0) + (line.values[index] ?? 0))),
    );
    return [times, ...stacked];
  }

  #options(): uPlot.Options {
    const series = this.#lines.map(({ name, look }): uPlot.Series => {
      const stroke = colour(look.colour);
      const line = { label: name, points: { show: false } };
      if (!this.#kind.stacked) return { ...line, stroke, width: 1.5 };
      // Without lines between: where one has nothing, its line would hide that of the one beneath.
      // A count is of its whole step: a slope from one to the next would show what was not.
      return { ...line, width: 0, fill: look.striped ? hatched(stroke) : stroke, ...STEPPED };
    });
    const bands = this.#lines.slice(1).map((_, index): uPlot.Band => ({ series: [index + 2, index + 1] }));
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    return {
      width: Math.max(160, this.#plot.clientWidth),
      height: HEIGHT,
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: TOGETHER } },
      series: [{}, ...series],
      bands: this.#kind.stacked ? bands : [],
      scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
      axes: [
        { ...axis, font, size: 26, incrs: [60, 120, 300], space: 56, values: (_, at) => at.map((one) => clock(one).slice(0, 5)) },
        { ...axis, font, size: widthOf, space: 32, values: (_, at) => at.map((one) => rounded(this.#kind.text(one))) },
      ],
      hooks: { setCursor: [() => this.#tell()] },
    };
  }

  #resize(): void {
    const width = this.#plot.clientWidth;
    if (this.#chart !== null && width > 0 && width !== this.#chart.width) this.#chart.setSize({ width, height: HEIGHT });
  }

  /** Write the values beneath: those of the cursor, else the last. */
  #tell(): void {
    const last = Math.max(0, ...this.#lines.map((line) => line.values.length - 1));
    const at = this.#chart?.cursor.idx ?? last;
    say(this.#when, this.#lines.length === 0 ? "" : clock(this.#times.from + at * this.#times.step_s));
    const shown = this.#kind.stacked ? [...this.#lines].reverse() : this.#lines;
    while (this.#legend.children.length > shown.length) this.#legend.lastElementChild?.remove();
    shown.forEach((line, index) => {
      const item = this.#legend.children[index] ?? this.#legend.appendChild(legendItem());
      const [key, name, value] = item.children;
      if (key !== undefined) swatch(key, line.look);
      if (name !== undefined) say(name, line.name);
      if (value !== undefined) say(value, this.#kind.text(line.values[at]));
    });
  }

  #summary(): string {
    if (this.#lines.length === 0) return `${this.#title}: ${this.#kind.empty}`;
    const told = this.#lines.map((line) => {
      const most = Math.max(...line.values.map((value) => value ?? 0));
      return `${line.name} ${this.#kind.text(line.values.at(-1))}, at most ${this.#kind.text(most)}`;
    });
    return `${this.#title}, now: ${told.join("; ")}`;
  }

  /** It is written when it is opened, and then stays as it is: nobody can read a table that changes each second. */
  #tabulate(): void {
    this.#more.querySelector(".scroll")?.remove();
    if (!this.#more.open) return;
    const { from, step_s } = this.#times;
    const count = Math.max(0, ...this.#lines.map((line) => line.values.length));
    const rows = Array.from({ length: count }, (_, index) => [
      clock(from + index * step_s),
      ...this.#lines.map((line) => this.#kind.text(line.values[index])),
    ]).reverse();
    const shown = table(this.#title, [["Time", "t"], ...this.#lines.map((line) => [line.name, "n"] as const)], rows);
    const box = { class: "scroll tall", role: "region", "aria-label": `${this.#title}, as a table`, tabindex: "0" };
    this.#more.append(make("div", box, shown));
  }
}

/** Return a filling of stripes. */
function hatched(stroke: string): CanvasPattern | string {
  const tile = make("canvas", { width: "6", height: "6" });
  const context = tile.getContext("2d");
  if (context === null) return stroke;
  context.strokeStyle = stroke;
  context.lineWidth = 2.5;
  context.beginPath();
  for (const start of [-6, 0, 6]) {
    context.moveTo(start, 6);
    context.lineTo(start + 6, 0);
  }
  context.stroke();
  return context.createPattern(tile, "repeat") ?? stroke;
}

/** Make an element the key of a substrate's colour. */
export function swatch(element: Element, look: Look): void {
  mark(element, "class", `key ${look.colour.slice(2)}${look.striped ? " striped" : ""}`);
}

/** Return an axis' label without zeros that say nothing. */
function rounded(label: string): string {
  return label.replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "");
}

/** Return how wide an axis must be for its labels, pixels. */
function widthOf(_: uPlot, labels: string[] | null): number {
  return 14 + 7 * Math.max(3, ...(labels ?? []).map((label) => label.length));
}

function legendItem(): HTMLElement {
  return make("li", {}, make("span", { class: "key" }), make("span", { class: "who" }), make("b", {}));
}
