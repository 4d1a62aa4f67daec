// What may be done from here: a button for what the role allows, and a question before it is done.

import { byId, el, hide, keyed, text } from "./dom.js";
import { ask } from "./session.js";
import { say } from "./said.js";
import { known } from "./state.js";
import { amount } from "./units.js";

const BEFORE = ["waiting", "preparing", "booting", "cutting-over", "shifting", "watching"];
const LEAVING = ["draining", "stopping", "killed", "exited"];

// Each: what it needs, its words, when it is there, what will happen, and the request.
const ACTIONS = [
  {
    may: "reload", label: "Reload", there: () => true, path: () => "/api/reload",
    about: (status) => `What is on the disk now is started as a new generation${beside(status)}, and takes over when all of it is ready. No request is lost. If it fails, what serves goes on.`,
  },
  {
    may: "rollback", label: "Roll back", there: () => true, path: () => "/api/rollback",
    about: (status) => `The release before the one that serves${serving(status) ? ` (gen ${serving(status).id})` : ""} is put back into service, as a reload would. No request is lost.`,
  },
  {
    may: "scale", label: "+ worker", name: "One worker more", there: (status) => wanted(status) > 0, path: (status) => `/api/scale?workers=${wanted(status) + 1}`,
    about: (status) => `${amount(wanted(status) + 1, "worker")} instead of ${wanted(status)}: one is started beside those that serve.`,
  },
  {
    may: "scale", label: "− worker", name: "One worker fewer", there: (status) => wanted(status) > 1, path: (status) => `/api/scale?workers=${wanted(status) - 1}`,
    about: (status) => `${amount(wanted(status) - 1, "worker")} instead of ${wanted(status)}: the last one takes nothing new, finishes what it holds, and leaves.`,
  },
  {
    may: "abort", label: "Abort", there: (status) => isBefore(status.rollout), path: () => "/api/abort",
    about: ({ rollout }) => `Rollout ${rollout.id} is called off: its workers are ended${rollout.previous !== null ? `, and gen ${rollout.previous} serves on` : ""}.`,
  },
  {
    may: "promote", label: "Promote", there: (status) => status.rollout?.state === "watching", path: () => "/api/promote",
    about: ({ rollout }) => `The canary of gen ${rollout.generation} passes without being watched any longer: the rest of its workers come, and the old ones leave.`,
  },
];

const isBefore = (rollout) => rollout !== null && rollout.outcome === null && BEFORE.includes(rollout.state);
const serving = (status) => status.generations.find((one) => one.state === "serving");
const beside = (status) => (serving(status) ? ` beside gen ${serving(status).id}` : "");

// How many workers what serves has, or is to have: slots, since one that is replaced has two for a while.
function wanted(status) {
  const one = serving(status);
  if (!one) return 0;
  const living = one.workers.filter((worker) => !LEAVING.includes(worker.state));
  return new Set([...living, ...one.waiting].map((slot) => slot.id)).size;
}

let asked = null;

export function showActions({ hello, status }) {
  const may = hello?.whoami.may ?? [];
  const there = status ? ACTIONS.filter((one) => may.includes(one.may) && one.there(status)) : [];
  keyed(byId("actions"), there, (one) => one.label, makeButton, () => {});
  hide(byId("actions"), !there.length);
}

function makeButton(action) {
  const node = el("button", { type: "button", ...(action.name ? { "aria-label": action.name } : {}) }, action.label);
  node.addEventListener("click", () => open(action));
  return { node };
}

function open(action) {
  // What is said here is done, also if the service changes while it is read.
  asked = { action, path: action.path(known.status) };
  text(byId("dialog-title"), `${action.name ?? action.label}?`);
  text(byId("dialog-text"), action.about(known.status));
  text(byId("dialog-yes"), action.name ?? action.label);
  byId("dialog").showModal();
  byId("dialog-no").focus();
}

byId("dialog-no").addEventListener("click", () => byId("dialog").close());
byId("dialog-yes").addEventListener("click", () => {
  byId("dialog").close();
  send(asked.action, asked.path);
});

async function send(action, path) {
  const name = action.name ?? action.label;
  say(`${name}: asked for.`);
  try {
    const answer = await ask(path, { method: "POST" });
    const said = await answer.json();
    if (answer.ok) say(`${name}: ${begun(said)}`, "good");
    else say(`${name}: ${said.detail}`, "bad");
  } catch {
    say(`${name}: no answer. It may happen all the same.`, "bad");
  }
}

function begun(answer) {
  if (answer.workers_before !== undefined) return `${amount(answer.workers_wanted, "worker")} wanted.`;
  const which = answer.generation !== null ? `gen ${answer.generation}` : `rollout ${answer.id}`;
  return answer.outcome === "aborted" ? `${which} is called off.` : `${which} is under way.`;
}
