// Which service it is, how it is, and whether anybody says so.

import { attribute, badge, byId, el, hide, keyed, text } from "./dom.js";
import { lasts } from "./units.js";
import { up } from "./ticking.js";

const NO_FACTS = { listeners: [] };

export function showHead({ hello, status }) {
  const name = status?.name ?? hello?.name ?? "stillup";
  text(byId("name"), name);
  if (document.title !== name) document.title = name;
  text(byId("place"), hello?.remote ? `on ${hello.remote}` : "");
  badge(byId("state"), status?.state ?? "");
  const { listeners, version, pid, uptime, reexecs, cordoned_for } = status ?? NO_FACTS;
  const facts = [];
  if (status) {
    facts.push(["Up", uptime, "time"], ["Listens", listeners.map(address).join(", ") || "nowhere"]);
    if (cordoned_for !== null) facts.push(["Cordoned", cordoned_for, "time"]);
    facts.push(["Version", version], ["Supervisor", `pid ${pid}${reexecs ? `, replaced ${reexecs}×` : ""}`]);
  }
  if (hello) facts.push(["You are", hello.whoami.role]);
  keyed(byId("facts"), facts, ([label]) => label, makeFact, updateFact);
}

const address = (one) =>
  `${one.address}${one.state === "serving" ? "" : ` (${one.state})`}${one.trouble ? ` (${one.trouble})` : ""}`;

function makeFact() {
  const [label, value] = [el("dt"), el("dd")];
  return { node: el("div", {}, label, value), label, value };
}

function updateFact(row, [label, value, kind]) {
  text(row.label, label);
  if (kind === "time") up(row.value, value, lasts);
  else text(row.value, value);
}

export function showTrouble({ trouble, lost, status }) {
  const box = byId("trouble");
  const kept = status ? " What was known last is shown." : "";
  const why = lost
    ? "The dashboard's own process does not answer: 'stillup dashboard' may have ended."
    : trouble && `No supervisor answers: ${trouble}.`;
  text(box, why ? why + kept : "");
  hide(box, !why);
  attribute(document.body, "data-stale", why ? "yes" : null);
}
