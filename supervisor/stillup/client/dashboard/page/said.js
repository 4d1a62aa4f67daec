// What has come of something, in a line that is also read out.

import { attribute, byId, text } from "./dom.js";

let ofRollout = false;

export function say(what, tone = "plain", outcome = false) {
  ofRollout = outcome;
  text(byId("said"), what);
  attribute(byId("said"), "data-tone", tone);
}

// The outcome of the rollout before is no news any more.
export function forgetOutcome() {
  if (ofRollout) say("");
}
