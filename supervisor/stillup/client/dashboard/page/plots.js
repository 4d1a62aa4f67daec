// Four plots of the last 15 minutes, and a table of their numbers.

import { byId, el, hide, keyed, text } from "./dom.js";
import { Plot } from "./plot.js";
import { known } from "./state.js";
import { bytes, few, took, whole } from "./units.js";

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const COLUMNS = [
  ["Time", (one) => CLOCK.format(new Date(one.at))],
  ["Generation", (one) => (one.generation === null ? "–" : whole(one.generation))],
  ["Workers", (one) => whole(one.workers)],
  ["Requests/s", (one) => few(one.requests)],
  ["Errors/s", (one) => few(one.errors)],
  ["p50", (one) => (one.p50 === null ? "–" : took(one.p50))],
  ["p99", (one) => (one.p99 === null ? "–" : took(one.p99))],
  ["Memory", (one) => bytes(one.memory)],
  ["Lag", (one) => took(one.lag)],
  ["Connections", (one) => whole(one.connections)],
];

const seconds = { of: took };
const plots = [
  new Plot("Requests", [line("requests"), line("errors")], { of: (number) => `${few(number)}/s` }),
  new Plot("Time to answer", [line("p50"), line("p99")], seconds),
  new Plot("Memory of all workers", [line("memory")], { of: bytes, binary: true }),
  new Plot("Lag of the worst event loop", [line("lag")], seconds),
];

byId("plots").append(...plots.map((plot) => plot.node));
byId("numbers-head").append(el("tr", {}, ...COLUMNS.map(([name]) => el("th", { scope: "col", class: "number" }, name))));
byId("numbers").addEventListener("toggle", () => showNumbers(known.series));

function line(name) {
  return { name, value: (point) => point[name] };
}

export function showPlots({ series }) {
  hide(byId("plots-none"), series.points.length > 0);
  hide(byId("plots"), !series.points.length);
  for (const plot of plots) plot.update(series);
  showNumbers(series);
}

// The table is there for whoever has opened it: it has as many cells as the rest of the page.
function showNumbers(series) {
  const points = byId("numbers").open && series ? [...series.points].reverse() : [];
  keyed(byId("numbers-body"), points, (one) => one.at, makeNumbers, (row, one) => {
    row.cells.forEach((cell, place) => text(cell, COLUMNS[place][1](one)));
  });
}

function makeNumbers() {
  const cells = COLUMNS.map(() => el("td", { class: "number" }));
  return { node: el("tr", {}, ...cells), cells };
}
