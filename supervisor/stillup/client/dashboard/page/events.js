// Events, the newest first: rows are used again, and held still while somebody looks at them.

import { attribute, byId, el, hide, text } from "./dom.js";
import { known } from "./state.js";
import { amount } from "./units.js";

const FLOOD = 50; // new ones since the last look, from which on a look a second is enough
const PAUSE = 1000; // milliseconds
const FEW = 30; // that are shown of a flood: nobody reads more in a second
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

const rows = []; // as they are shown, from the top
let seen = 0; // of all that arrived, those that were shown or filtered out
let looked = 0;
let wait = null;

const box = byId("events-box");
const filter = byId("filter");

for (const name of ["pointerenter", "pointerleave", "focusin", "focusout"]) box.addEventListener(name, () => setTimeout(() => showEvents(known)));
for (const name of ["input", "change"]) filter.addEventListener(name, () => show(known));

const isHeld = () => box.matches(":hover, :focus-within");

export function showEvents(state) {
  const fresh = state.arrived - seen;
  if (isHeld() && rows.length) {
    note(fresh ? `Held while you look: ${amount(fresh, "event")} came since.` : "Held while you look.");
    return;
  }
  const early = looked + PAUSE - performance.now();
  if (fresh > FLOOD && early > 0) {
    wait ??= setTimeout(() => {
      wait = null;
      if (!document.hidden) requestAnimationFrame(() => showEvents(known));
    }, early);
    return;
  }
  show(state, fresh);
}

function show(state, fresh = 0) {
  const wanted = filter.value.trim().toLowerCase();
  const all = wanted ? state.events.filter((one) => one.text.toLowerCase().includes(wanted)) : state.events;
  const found = fresh > FLOOD ? all.slice(0, FEW) : all;
  looked = performance.now();
  seen = state.arrived;
  const unshown = fresh > FLOOD ? `${amount(Math.max(0, fresh - found.length), "event")} more came too fast to be shown. ` : "";
  note(unshown + (wanted ? `${found.length} of ${amount(state.events.length, "event")}.` : ""));
  while (rows.length > found.length) rows.pop().node.remove();
  turn(found);
  while (rows.length < found.length) add();
  found.forEach((one, place) => update(rows[place], one));
}

// Where the newest are new, have rows from the end show them, so that the others keep what they show.
function turn(found) {
  const first = rows[0]?.event;
  const place = first ? found.indexOf(first) : 0;
  if (place < 1) return;
  const free = rows.length + place - found.length;
  const moved = free > 0 ? rows.splice(-free) : [];
  while (moved.length < place) moved.push(make());
  rows.unshift(...moved);
  byId("events").prepend(...moved.map((row) => row.node));
}

function add() {
  const row = make();
  rows.push(row);
  byId("events").append(row.node);
}

function make() {
  const [time, what] = [el("time"), el("span")];
  return { node: el("li", {}, time, what), time, what, event: null };
}

function update(row, one) {
  if (row.event === one) return;
  row.event = one;
  attribute(row.time, "datetime", one.at);
  text(row.time, TIME.format(new Date(one.at)));
  text(row.what, one.text);
}

function note(what) {
  text(byId("events-note"), what || "\u00a0");
  hide(byId("events-note"), false);
}
