// What is known of the service, and what of it is to be drawn anew.

const EVENTS = 200;
const FAILURES = 20;

export const known = {
  hello: null,
  status: null,
  trouble: "",
  lost: false,
  events: [], // the newest first
  arrived: 0, // all that ever came, skipped ones included
  series: null,
  failures: new Map(), // by rollout: its failure is told only while it is the last one
};

// Take a message in; the parts of the page that it changes.
export function take(message) {
  const dirty = [];
  if (message.hello) {
    known.hello = message.hello;
    dirty.push("hello");
  }
  if (message.trouble !== undefined) {
    known.trouble = message.trouble;
    dirty.push("trouble");
  }
  if (message.status) {
    known.status = message.status;
    remember(message.status);
    dirty.push("status");
  }
  if (message.events) {
    known.arrived += message.events.length + (message.skipped ?? 0);
    known.events = [...message.events.slice(-EVENTS).reverse(), ...known.events].slice(0, EVENTS);
    dirty.push("events");
  }
  if (message.series) {
    known.series = message.series;
    dirty.push("series");
  }
  if (known.lost) {
    known.lost = false;
    dirty.push("trouble");
  }
  return dirty;
}

function remember(status) {
  const rollout = status.rollout;
  if (!rollout?.failure) return;
  known.failures.delete(rollout.id);
  known.failures.set(rollout.id, rollout.failure);
  if (known.failures.size > FAILURES) known.failures.delete(known.failures.keys().next().value);
}
