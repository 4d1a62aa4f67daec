// Generations with their workers, a row each that stays where it is.

import { attribute, badge, byId, el, hide, keyed, text } from "./dom.js";
import { Rates, keyOf } from "./rates.js";
import { down, still, up } from "./ticking.js";
import { amount, bytes, counts, few, lasts, left, percent, took, whole } from "./units.js";

const FAMILIES = { request: "request", stream: "stream", websocket: "WebSocket", idle: "idle", other: "other" };
const COLUMNS = ["Worker", "State", "CPU", "Memory", "Requests", "Lag", "Connections", "Notes"];
const NUMBERS = 4; // columns after the first two

const rates = new Rates();
let most = 1;
let families = new Map(); // by class of a connection

for (const [family, name] of Object.entries(FAMILIES)) byId("legend").append(el("li", {}, el("i", { class: `bar ${family}` }), name));

export function showGenerations({ status, hello }) {
  rates.look(status);
  families = new Map(Object.entries(hello.families));
  most = Math.max(1, ...status.generations.flatMap(({ workers }) => workers.map(total)));
  const newest = [...status.generations].reverse();
  keyed(byId("generations"), newest, (one) => String(one.id), makeGeneration, updateGeneration);
}

function makeGeneration(one) {
  const row = { title: el("h3"), state: el("span"), what: el("span", { class: "muted" }), time: el("span", { class: "muted" }) };
  row.body = el("tbody");
  const head = el("tr", {}, ...COLUMNS.map((name, place) => el("th", { scope: "col", ...(isNumber(place) ? { class: "number" } : {}) }, name)));
  row.table = el("table", {}, el("thead", {}, head), row.body);
  row.scroll = el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Workers of generation ${Number(one.id)}` }, row.table);
  row.waiting = el("ul", { class: "waiting" });
  row.state.className = "badge";
  row.node = el("article", { class: "generation" }, el("div", { class: "heading" }, row.title, row.state, row.what, row.time), row.scroll, row.waiting);
  return row;
}

const isNumber = (place) => place >= 2 && place < 2 + NUMBERS;

function updateGeneration(row, one) {
  attribute(row.node, "data-generation", one.id);
  text(row.title, `gen ${one.id}`);
  badge(row.state, one.state);
  text(row.what, `${one.release}, ${amount(one.workers.length, "worker")}`);
  if (one.standby_left !== null) down(row.time, one.standby_left, (seconds) => `a rollback is at once for ${left(seconds)}`);
  else if (one.draining_for !== null) up(row.time, one.draining_for, (seconds) => `for ${lasts(seconds)}`);
  else still(row.time, "");
  keyed(row.body, one.workers, keyOf, makeWorker, updateWorker);
  keyed(row.waiting, one.waiting, (slot) => slot.id, makeSlot, updateSlot);
  hide(row.waiting, !one.waiting.length);
}

function makeWorker() {
  const row = { id: el("th", { scope: "row" }), state: el("span", { class: "badge" }) };
  for (const name of ["cpu", "memory", "requests", "lag"]) row[name] = el("td", { class: "number" });
  row.bars = new Map(Object.keys(FAMILIES).map((family) => [family, el("i", { class: `bar ${family}` })]));
  row.count = el("span");
  row.track = el("span", { class: "track", role: "img" }, ...row.bars.values());
  row.notes = el("td");
  const connections = el("td", {}, el("span", { class: "connections" }, row.track, row.count));
  row.node = el("tr", {}, row.id, el("td", {}, row.state), row.cpu, row.memory, row.requests, row.lag, connections, row.notes);
  return row;
}

function updateWorker(row, worker) {
  const rate = worker.memory ? rates.of(worker) : null; // it has reported
  attribute(row.node, "data-worker", worker.id);
  text(row.id, worker.id);
  badge(row.state, worker.hung_for !== null ? "hangs" : worker.state);
  text(row.cpu, rate ? percent(rate.cpu) : "–");
  text(row.memory, worker.memory ? bytes(worker.memory) : "–");
  text(row.requests, rate ? `${few(rate.requests)}/s` : "–");
  text(row.lag, took(worker.lag));
  showConnections(row, worker);
  text(row.notes, notes(worker));
}

const total = (worker) => Object.values(worker.classes).reduce((sum, number) => sum + number, 0);

function showConnections(row, worker) {
  const sums = new Map();
  for (const [name, number] of Object.entries(worker.classes)) {
    const family = families.get(name) ?? "other";
    sums.set(family, (sums.get(family) ?? 0) + number);
  }
  for (const [family, bar] of row.bars) {
    const width = `${(100 * (sums.get(family) ?? 0)) / most}%`;
    if (bar.style.width !== width) bar.style.width = width;
  }
  attribute(row.track, "aria-label", counts(worker.classes) || "none");
  attribute(row.track, "title", counts(worker.classes) || null);
  text(row.count, whole(total(worker)));
}

function notes(worker) {
  const said = [`pid ${worker.pid ?? "–"}`];
  if (worker.leader) said.push("leads");
  if (worker.hung_for !== null) said.push(`silent for ${lasts(worker.hung_for)}`);
  if (worker.worn) said.push(`is replaced: ${worker.worn}`);
  if (worker.probe) said.push(worker.probe);
  if (worker.birth) said.push(worker.birth);
  const oldest = Object.entries(worker.oldest).map(([name, seconds]) => `oldest ${name} ${lasts(seconds)}`);
  return [...said, ...oldest].join(", ");
}

function makeSlot() {
  const [id, why, time] = [el("strong"), el("span"), el("span")];
  return { node: el("li", {}, id, " ", why, " ", time), id, why, time };
}

function updateSlot(row, slot) {
  text(row.id, slot.id);
  text(row.why, `${slot.worn ? `wore out young (${slot.worn})` : "died young"} ${slot.deaths}× in a row, next start in`);
  down(row.time, slot.seconds, left);
}
