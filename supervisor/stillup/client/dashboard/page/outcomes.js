// How the last rollouts ended, with what a failed worker wrote as far as this page has seen it; and who died.

import { badge, byId, el, hide, keyed, text } from "./dom.js";
import { up } from "./ticking.js";
import { lasts } from "./units.js";

const SHOWN = 12;

const ago = (node, seconds) => up(node, seconds, (all) => `${lasts(all)} ago`);

let failures = new Map();

export function showOutcomes({ status, failures: known }) {
  failures = known;
  const outcomes = status.outcomes.slice(0, SHOWN);
  const deaths = status.deaths.slice(0, SHOWN);
  hide(byId("outcomes-none"), outcomes.length > 0);
  keyed(byId("outcomes"), outcomes, (one) => keyOf(one), makeOutcome, updateOutcome);
  hide(byId("deaths-part"), !deaths.length);
  keyed(byId("deaths"), deaths, (one) => `${one.id} ${one.pid}`, makeDeath, updateDeath);
}

// One that was refused has no number: it is known by what is said of it.
const keyOf = (one) => (one.rollout !== null ? `${one.rollout}` : `${one.why} ${one.reason} ${one.message}`);

function makeOutcome() {
  const row = { outcome: el("span", { class: "badge" }), gen: el("strong"), time: el("span", { class: "muted" }), why: el("p", { class: "muted" }), failure: el("p") };
  row.output = el("pre", { tabindex: "0", role: "region", "aria-label": "What the worker wrote last" });
  row.details = el("details", {}, el("summary", {}, "What the worker wrote"), row.output);
  row.node = el("li", {}, el("p", { class: "line" }, row.outcome, row.gen, row.time), row.why, row.failure, row.details);
  return row;
}

function updateOutcome(row, one) {
  const failure = one.outcome === "succeeded" ? null : failures.get(one.rollout);
  badge(row.outcome, one.outcome);
  text(row.gen, one.generation !== null ? `gen ${one.generation}` : one.rollout !== null ? `rollout ${one.rollout}` : "");
  ago(row.time, one.ago);
  text(row.why, [one.release, one.why].filter(Boolean).join(", "));
  text(row.failure, [one.reason, one.failure, one.message].filter(Boolean).join(": "));
  hide(row.failure, !row.failure.textContent);
  text(row.output, failure?.output ?? "");
  hide(row.details, !failure?.output);
}

function makeDeath() {
  const [who, how, time] = [el("strong"), el("span"), el("span", { class: "muted" })];
  return { node: el("li", {}, el("p", { class: "line" }, who, how, time)), who, how, time };
}

function updateDeath(row, one) {
  text(row.who, `${one.id}${one.pid ? ` (pid ${one.pid})` : ""}`);
  text(row.how, one.how);
  ago(row.time, one.ago);
}
