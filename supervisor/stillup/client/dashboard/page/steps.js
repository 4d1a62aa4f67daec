// A rollout as the steps that it takes, each with how far it has come.

import { amount, counts, percent, took } from "./units.js";

const WATCHED = { pass: "passed", promoted: "promoted", ungated: "not judged, and lives", fail: "failed", inconclusive: "cannot be told" };
const HOOKS = { waiting: "todo", running: "active", stopping: "active", killed: "active", done: "done", failed: "failed" };

// Each step: key, name, state (todo, active, done, failed, skipped), detail; `took`: seconds, that count while it is
// active; `left`: seconds until its deadline.
export function stepsOf(rollout) {
  const cut = rollout.outcome === "succeeded" || rollout.outcome === "rolled-back";
  const ended = rollout.outcome === "aborted";
  const rolls = rollout.strategy !== "blue-green" && rollout.previous !== null;
  const steps = [step("asked", "Asked", "done", rollout.why)];
  if (rollout.state === "waiting") {
    const until = `until gen ${rollout.waits_for.join(" or ")} has left`;
    steps.push(step("waiting", "Waits", "active", until, { took: rollout.total, left: rollout.drain_left }));
  }
  steps.push(...hooks(rollout, "before"));
  steps.push(boot(rollout, cut, ended));
  if ((rollout.watch || rollout.strategy === "canary") && rollout.previous !== null) steps.push(watched(rollout, cut, ended));
  if (rolls) steps.push(rolled(rollout, cut, ended));
  const cutting = rollout.state === "cutting-over" ? "active" : undone(ended);
  steps.push(step("cut-over", "Cut over", cut ? "done" : cutting, "", { took: rollout.cut_over_took }));
  steps.push(...hooks(rollout, "after"));
  if (rollout.previous !== null && !ended) steps.push(drained(rollout, cut));
  if (rollout.state === "going-back" || (ended && rollout.step)) steps.push(back(rollout));
  if (cut && (rollout.probation_left !== null || rollout.deaths)) steps.push(probation(rollout));
  steps.push(end(rollout));
  return steps;
}

const step = (key, name, state, detail = "", times = {}) => ({ key, name, state, detail, took: null, left: null, ...times });

const undone = (ended) => (ended ? "skipped" : "todo");

function hooks(rollout, kind) {
  return rollout.hooks
    .filter((one) => one.hook === kind)
    .map((one) => {
      const times = { took: one.seconds, left: one.left };
      const why = one.reason ? `${one.command}: ${one.reason}` : one.command;
      return step(`${kind} ${one.id}`, kind === "before" ? "Hook before" : "Hook after", HOOKS[one.state] ?? "active", why, times);
    });
}

function boot(rollout, cut, ended) {
  const { workers_ready: ready, workers_wanted: wanted, workers_queued: queued, probe } = rollout;
  const parts = [`${cut && rollout.step === null ? wanted : ready} of ${wanted} ready`, queued ? `${queued} queued` : "", probe, rollout.births.join(", ")];
  let state = "done";
  if (rollout.state === "booting") state = "active";
  else if (rollout.booting_for === null && !cut) state = undone(ended);
  else if (ended && ready < wanted && !rollout.watch && rollout.step === null) state = "failed";
  return step("boot", "Boot", state, parts.filter(Boolean).join(", "), { took: rollout.booting_for });
}

function watched(rollout, cut, ended) {
  const watch = rollout.watch;
  if (!watch) return step("canary", "Canary", cut ? "done" : undone(ended));
  const parts = [amount(watch.workers, "worker")];
  if (watch.verdict) parts.push(WATCHED[watch.verdict] ?? watch.verdict);
  if (watch.new && watch.old) {
    parts.push(`${percent(watch.share)} of requests`);
    parts.push(`errors ${errors(watch.new)}, old ${errors(watch.old)}`);
    parts.push(`p99 ${took(watch.new.p99)}, old ${took(watch.old.p99)}`);
  }
  if (watch.held_for !== null) parts.push(`held: ${watch.reason ?? "it cannot be told"}`);
  const bad = watch.verdict === "fail" || watch.verdict === "inconclusive";
  const state = rollout.state === "watching" ? "active" : bad || (ended && !watch.verdict) ? "failed" : "done";
  return step("canary", "Canary", state, parts.join(", "), { took: watch.watched_for, left: watch.goes_back_in });
}

const errors = (side) => percent(side.requests ? side.errors / side.requests : 0);

function rolled(rollout, cut, ended) {
  const at = rollout.step;
  const detail = at ? `${at.new} of ${at.of} on gen ${rollout.generation}` : cut ? `all on gen ${rollout.generation}` : "";
  const state = cut ? "done" : rollout.state === "shifting" ? "active" : ended && at ? "failed" : undone(ended);
  return step("roll", "Roll", state, detail);
}

function drained(rollout, cut) {
  const drains = counts(rollout.drains);
  const parts = [];
  if (rollout.moved) parts.push(`${amount(rollout.moved, "connection")} moved, longest pause ${took(rollout.longest_pause)}`);
  if (rollout.closed) parts.push(`${amount(rollout.closed, "connection")} closed`);
  if (rollout.refused_sessions) parts.push(`${amount(rollout.refused_sessions, "session")} did not go on`);
  const leaves = cut && rollout.state === "draining";
  if (leaves) parts.push(drains ? `gen ${rollout.previous} still has ${drains}` : `gen ${rollout.previous} leaves`);
  if (leaves && rollout.standby_left !== null) parts.push("standing by");
  const times = { left: leaves ? rollout.drain_left : null };
  return step("drain", "Move and drain", leaves ? "active" : cut ? "done" : "todo", parts.join("; "), times);
}

function back(rollout) {
  const at = rollout.step;
  const detail = at ? `${at.old} of ${at.of} on gen ${rollout.previous}` : "";
  return step("back", "Goes back", rollout.state === "going-back" ? "active" : "done", detail);
}

function probation(rollout) {
  const state = rollout.probation_left !== null ? "active" : rollout.outcome === "rolled-back" ? "failed" : "done";
  return step("probation", "Probation", state, amount(rollout.deaths, "death"), { left: rollout.probation_left });
}

function end(rollout) {
  const times = { took: rollout.outcome ? rollout.total : null };
  const reason = rollout.reason ? `: ${rollout.reason}` : "";
  switch (rollout.outcome) {
    case "aborted":
      return step("end", "Aborted", "failed", rollout.reason, times);
    case "rolled-back":
      return step("end", "Rolled back", "failed", `crashed${reason === ": crashed" ? "" : reason}`, times);
    case "succeeded": {
      if (rollout.state !== "done") return step("end", "Done", "todo");
      return step("end", "Done", "done", rollout.serves ? `gen ${rollout.generation} serves` : "", times);
    }
    default:
      return step("end", "Done", "todo");
  }
}
