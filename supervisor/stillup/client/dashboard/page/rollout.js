// The rollout that is under way, or the last one; why it failed, and what the worker wrote.

import { attribute, badge, byId, el, hide, keyed, text } from "./dom.js";
import { forgetOutcome, say } from "./said.js";
import { stepsOf } from "./steps.js";
import { down, still, up } from "./ticking.js";
import { left, took } from "./units.js";

const STATES = { todo: "to do", active: "under way", done: "done", failed: "failed", skipped: "not reached" };

let before = null;

export function showRollout({ status }) {
  const rollout = status.rollout;
  hide(byId("rollout-none"), rollout !== null);
  hide(byId("steps"), rollout === null);
  badge(byId("rollout-outcome"), rollout ? (rollout.outcome === "succeeded" && rollout.state === "draining" ? "draining" : (rollout.outcome ?? rollout.state)) : "");
  text(byId("rollout-what"), rollout ? what(rollout) : "");
  keyed(byId("steps"), rollout ? stepsOf(rollout) : [], (one) => `${rollout.id} ${one.key}`, makeStep, updateStep);
  showFailure(rollout?.failure ?? null);
  if (rollout) tell(rollout);
}

function what(rollout) {
  const from = rollout.previous !== null ? `gen ${rollout.previous} → ` : "";
  const gen = rollout.generation !== null ? `${from}gen ${rollout.generation}` : "no generation yet";
  const kind = rollout.strategy === "blue-green" ? "" : `, ${rollout.strategy}`;
  const takes = rollout.rolls_back !== null ? `, takes back rollout ${rollout.rolls_back}` : "";
  return `${rollout.id}: ${gen}${rollout.release ? ` (${rollout.release})` : ""}${kind}${takes}`;
}

function makeStep() {
  const [name, state, detail, time, deadline] = [el("strong"), el("span", { class: "unseen" }), el("p"), el("span"), el("span")];
  const node = el("li", {}, el("p", {}, name, state), detail, el("p", { class: "times" }, time, deadline));
  return { node, name, state, detail, time, deadline };
}

function updateStep(row, one) {
  attribute(row.node, "data-step", one.key);
  attribute(row.node, "data-state", one.state);
  attribute(row.node, "aria-current", one.state === "active" ? "step" : null);
  text(row.name, one.name);
  text(row.state, ` (${STATES[one.state]})`);
  text(row.detail, one.detail);
  if (one.took === null) still(row.time, "");
  else if (one.state === "active") up(row.time, one.took, took);
  else still(row.time, took(one.took));
  if (one.left === null) still(row.deadline, "");
  else down(row.deadline, one.left, (seconds) => `at most ${left(seconds)}`);
}

function showFailure(failure) {
  hide(byId("failure"), failure === null);
  if (failure === null) return;
  const who = failure.worker ? ` in worker ${failure.worker}${failure.pid ? ` (pid ${failure.pid})` : ""}` : "";
  text(byId("failure-title"), `Failed: ${failure.stage}${who}`);
  text(byId("failure-message"), failure.message);
  text(byId("failure-output"), failure.output);
  hide(byId("failure-output"), !failure.output);
}

// Say the outcome, once, of a rollout that was seen before it had one.
function tell(rollout) {
  const { id, outcome } = rollout;
  const changed = before !== null && (before.id !== id || before.outcome !== outcome);
  before = { id, outcome };
  if (changed && outcome === null) forgetOutcome();
  if (!changed || outcome === null) return;
  const gen = rollout.generation !== null ? `gen ${rollout.generation}` : `rollout ${id}`;
  const words = { succeeded: "serves", aborted: `was not put into service: ${rollout.reason}`, "rolled-back": "was rolled back: its workers crashed" };
  say(`${gen} ${words[outcome] ?? outcome}.`, outcome === "succeeded" ? "good" : "bad", true);
}
