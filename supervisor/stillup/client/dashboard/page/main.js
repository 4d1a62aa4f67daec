// The page: news come in by `feed`, and what they change is drawn once a frame, four times a second at most.

import { showActions } from "./actions.js";
import { byId, hide } from "./dom.js";
import { showEvents } from "./events.js";
import { showGenerations } from "./generations.js";
import { showHead, showTrouble } from "./head.js";
import { showOutcomes } from "./outcomes.js";
import { showPlots } from "./plots.js";
import { showRollout } from "./rollout.js";
import { enter, whenNotLetIn } from "./session.js";
import { known, take } from "./state.js";
import { follow } from "./stream.js";
import { tick } from "./ticking.js";

const PERIOD = 250; // milliseconds
const PARTS = {
  hello: [showHead, showActions],
  trouble: [showTrouble],
  status: [showHead, showActions, showRollout, showGenerations, showOutcomes],
  events: [showEvents],
  series: [showPlots],
};

const dirty = new Set();
let drawn = -PERIOD;
let waiting = false;

// Take a message of the stream in.
export function feed(message) {
  for (const part of take(message)) for (const draw of PARTS[part]) dirty.add(draw);
  later();
}

function later() {
  if (waiting || document.hidden || !dirty.size) return;
  waiting = true;
  setTimeout(() => requestAnimationFrame(draw), Math.max(0, drawn + PERIOD - performance.now()));
}

function draw() {
  waiting = false;
  if (document.hidden) return;
  drawn = performance.now();
  const parts = [...dirty];
  dirty.clear();
  for (const part of parts) part(known);
}

function lost() {
  known.lost = true;
  dirty.add(showTrouble);
  later();
}

async function start() {
  whenNotLetIn(() => {
    hide(byId("main"), true);
    hide(byId("actions"), true);
    hide(byId("trouble"), true);
    hide(byId("ended"), false);
  });
  window.addEventListener("hashchange", () => location.reload()); // a new address, opened in the same tab
  document.addEventListener("visibilitychange", later);
  setInterval(() => document.hidden || tick(known.trouble !== "" || known.lost), PERIOD);
  try {
    await enter();
  } catch {
    return;
  }
  await follow(feed, lost);
}

start();
