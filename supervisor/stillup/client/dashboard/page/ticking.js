// Times that go on between two words of the service: each is counted from the last one, four times a second.

import { text } from "./dom.js";

const nodes = new Map();

// Show so many seconds from now on: they become more, or fewer down to none.
export function ticking(node, seconds, format, step) {
  if (seconds === null || seconds === undefined) {
    nodes.delete(node);
    text(node, "");
    return;
  }
  nodes.set(node, { seconds, format, step, since: performance.now() });
  show(node);
}

export const up = (node, seconds, format) => ticking(node, seconds, format, 1);
export const down = (node, seconds, format) => ticking(node, seconds, format, -1);

// A time that has ended.
export function still(node, value) {
  nodes.delete(node);
  text(node, value);
}

function show(node) {
  const { seconds, format, step, since } = nodes.get(node);
  text(node, format(Math.max(0, seconds + (step * (performance.now() - since)) / 1000)));
}

// Those of nodes that have left the page are forgotten.
export function tick(stopped) {
  for (const node of nodes.keys()) {
    if (!node.isConnected) nodes.delete(node);
    else if (!stopped) show(node);
  }
}
