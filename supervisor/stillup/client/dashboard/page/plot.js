// A plot over time: lines, axes with units, cut-overs, and a readout of the point that is pointed at.

import { attribute, el, hide, keyed, svg, text } from "./dom.js";

const HEIGHT = 168;
const LEFT = 58;
const RIGHT = 12;
const TOP = 22;
const BOTTOM = 22;
const SPANS = [60, 180]; // seconds that are shown while there is no more to show than that
const THIRDS = [3, 2, 1, 0]; // of it, at which the axis has marks
const LABEL = 58; // pixels that the label of a cut-over takes
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export class Plot {
  #lines;
  #format;
  #points = [];
  #cutOvers = [];
  #span = 900;
  #most = 1;
  #width = 0;
  #at = null; // the point that is read out

  // `lines`: name, and value of a point (null: there is none); `format`: a value with its unit.
  constructor(title, lines, format) {
    this.title = title;
    this.#lines = lines.map((line, place) => ({ ...line, node: svg("path", { class: `line line-${place}` }) }));
    this.#format = format;
    this.#build();
    new ResizeObserver(([entry]) => {
      this.#width = Math.round(entry.contentRect.width);
      this.#draw();
    }).observe(this.box);
  }

  #build() {
    const key = this.#lines.map(({ name }, place) => el("li", {}, el("i", { class: `key key-${place}` }), name));
    this.readout = el("p", { class: "readout", "aria-live": "off" }, "\u00a0");
    this.grid = svg("g", { class: "grid" });
    this.cuts = svg("g", { class: "cuts" });
    this.pointer = svg("line", { class: "pointer", y1: TOP, y2: HEIGHT - BOTTOM });
    this.picture = svg("svg", { role: "img", tabindex: "0", height: HEIGHT, "aria-label": this.title }, this.grid, this.cuts, ...this.#lines.map((line) => line.node), this.pointer);
    this.box = el("div", { class: "picture" }, this.picture);
    const legend = el("ul", { class: "legend" }, ...(key.length > 1 ? key : []));
    this.node = el("figure", { class: "plot" }, el("figcaption", {}, el("h3", {}, this.title), legend), this.box, this.readout);
    this.pointer.style.display = "none";
    this.picture.addEventListener("pointermove", (event) => this.#point(event.offsetX, "off"));
    this.picture.addEventListener("pointerleave", () => this.#read(null));
    this.picture.addEventListener("focus", () => this.#read(this.#points.length - 1));
    this.picture.addEventListener("blur", () => this.#read(null));
    this.picture.addEventListener("keydown", (event) => this.#step(event));
  }

  update({ points, cut_overs, span }) {
    const shift = this.#at !== null && this.#points.length ? points.findIndex((one) => one.at === this.#points[this.#at]?.at) : null;
    this.#points = points.map((one) => ({ ...one, time: Date.parse(one.at) }));
    this.#cutOvers = cut_overs.map((one) => ({ ...one, time: Date.parse(one.at) }));
    this.#span = this.#points.length ? fitting(this.#points, span) : span;
    if (this.#at !== null) this.#at = shift === null || shift < 0 ? null : shift;
    this.#draw();
  }

  #draw() {
    const last = this.#points.at(-1);
    if (!last || !this.#width) return;
    attribute(this.picture, "width", this.#width);
    attribute(this.picture, "viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    const values = this.#points.flatMap((one) => this.#lines.map((line) => line.value(one) ?? 0));
    this.#most = roundUp(Math.max(...values), this.#format.binary);
    this.#drawGrid();
    this.#drawCuts();
    for (const line of this.#lines) attribute(line.node, "d", this.#path(line));
    attribute(this.picture, "aria-label", this.#summary());
    this.#read(this.#at);
  }

  #x(time) {
    const end = this.#points.at(-1).time;
    return LEFT + (this.#width - LEFT - RIGHT) * Math.max(0, 1 - (end - time) / 1000 / this.#span);
  }

  #y(value) {
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * Math.min(1, value / this.#most);
  }

  #path(line) {
    let draws = false;
    let path = "";
    for (const one of this.#points) {
      const value = line.value(one);
      if (value !== null) path += `${draws ? "L" : "M"}${this.#x(one.time).toFixed(1)} ${this.#y(value).toFixed(1)}`;
      draws = value !== null;
    }
    return path;
  }

  #drawGrid() {
    const end = this.#points.at(-1).time;
    const levels = [0, 0.5, 1].map((part) => ({ key: `y${part}`, y: this.#y(part * this.#most), label: this.#format.of(part * this.#most) }));
    const times = THIRDS.map((third) => ({ key: `x${third}`, x: this.#x(end - (third * this.#span * 1000) / 3), label: ago((third * this.#span) / 3) }));
    keyed(this.grid, [...levels, ...times], (one) => one.key, makeMark, (row, one) => this.#mark(row, one));
  }

  #mark(row, { x, y, label }) {
    const level = x === undefined;
    const [x1, x2, y1, y2] = level ? [LEFT, this.#width - RIGHT, y, y] : [x, x, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 4];
    place(row.line, { x1, x2, y1, y2 });
    place(row.label, level ? { x: LEFT - 6, y: y + 4 } : { x: Math.min(x, this.#width - 2), y: HEIGHT - 4 });
    const anchor = level || x > this.#width - 40 ? "end" : x < LEFT + 20 ? "start" : "middle";
    attribute(row.label, "text-anchor", anchor);
    text(row.label, label);
  }

  // The labels of cut-overs that would lie on one another are left out, the older ones.
  #drawCuts() {
    let free = Infinity;
    const since = this.#points.at(-1).time - this.#span * 1000;
    const shown = this.#cutOvers.filter((one) => one.time >= since).reverse().map((one) => {
      const x = this.#x(one.time);
      const label = x + LABEL / 2 < free;
      if (label) free = x - LABEL / 2;
      return { ...one, x, label };
    });
    keyed(this.cuts, shown, (one) => `${one.generation}`, makeMark, (row, one) => {
      attribute(row.node, "class", one.rolls_back ? "cut back" : "cut");
      place(row.line, { x1: one.x, x2: one.x, y1: TOP, y2: HEIGHT - BOTTOM });
      place(row.label, { x: Math.min(Math.max(one.x, LEFT), this.#width - 30), y: 13 });
      attribute(row.label, "text-anchor", "middle");
      text(row.label, one.label ? `${one.rolls_back ? "↩ " : ""}gen ${one.generation}` : "");
    });
  }

  // What a picture says to whoever does not see it.
  #summary() {
    const parts = this.#lines.map((line) => {
      const values = this.#points.map(line.value).filter((one) => one !== null);
      if (!values.length) return `${line.name}: none`;
      const [least, most, last] = [Math.min(...values), Math.max(...values), values.at(-1)].map(this.#format.of);
      return `${line.name}: at least ${least}, at most ${most}, last ${last}`;
    });
    const cuts = this.#cutOvers.map((one) => `gen ${one.generation}${one.rolls_back ? " by a rollback" : ""} at ${CLOCK.format(one.time)}`);
    return `${this.title} of the last minutes. ${parts.join(". ")}.${cuts.length ? ` Cut-overs: ${cuts.join(", ")}.` : ""}`;
  }

  #point(x, live) {
    if (!this.#points.length) return;
    attribute(this.readout, "aria-live", live);
    const gaps = this.#points.map((one) => Math.abs(this.#x(one.time) - x));
    this.#read(gaps.indexOf(Math.min(...gaps)));
  }

  #step(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || !this.#points.length) return;
    event.preventDefault();
    attribute(this.readout, "aria-live", "polite");
    const last = this.#points.length - 1;
    this.#read(Math.min(last, Math.max(0, (this.#at ?? last) + steps[event.key])));
  }

  #read(at) {
    const one = at === null ? undefined : this.#points[at];
    this.#at = one ? at : null;
    const style = one ? "" : "none";
    if (this.pointer.style.display !== style) this.pointer.style.display = style;
    if (!one) return text(this.readout, "\u00a0");
    const x = this.#x(one.time);
    place(this.pointer, { x1: x, x2: x });
    const values = this.#lines.map((line) => `${line.name} ${line.value(one) === null ? "–" : this.#format.of(line.value(one))}`);
    text(this.readout, `${CLOCK.format(one.time)}: ${values.join(", ")}`);
  }
}

// The shortest of the spans that has all points, else the longest.
function fitting(points, longest) {
  const seconds = (points.at(-1).time - points[0].time) / 1000 + points[0].seconds;
  return SPANS.find((span) => span >= seconds) ?? longest;
}

function ago(seconds) {
  if (!seconds) return "now";
  return seconds % 60 ? `−${seconds} s` : `−${seconds / 60} min`;
}

function makeMark() {
  const [line, label] = [svg("line"), svg("text")];
  return { node: svg("g", {}, line, label), line, label };
}

function place(node, numbers) {
  for (const [name, number] of Object.entries(numbers)) attribute(node, name, String(Math.round(number * 10) / 10));
}

// The end of an axis: 1, 2 or 5 of a power of ten; of bytes of 1024.
function roundUp(value, binary = false) {
  if (!(value > 0)) return 1;
  const unit = binary ? 1024 ** Math.floor(Math.log(value) / Math.log(1024)) : 1;
  const power = unit * 10 ** Math.floor(Math.log10(value / unit));
  return [1, 2, 4, 5, 10].map((one) => one * power).find((one) => one >= value) ?? 10 * power;
}
