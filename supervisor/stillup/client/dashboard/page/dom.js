// Elements, made once and changed where something is new. Texts of the service never become markup.

const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;
const SAID = Symbol("said");
const ROWS = Symbol("rows");
const SVG = "http://www.w3.org/2000/svg";

// What others have chosen, with controls and marks of direction written out.
export function shown(value) {
  return String(value).replace(UNSEEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
}

export const byId = (id) => document.getElementById(id);

export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function text(node, value) {
  if (node[SAID] === value) return;
  node[SAID] = value;
  node.textContent = shown(value);
}

export function attribute(node, name, value) {
  const said = value === null ? null : shown(value);
  if (node.getAttribute(name) === said) return;
  if (said === null) node.removeAttribute(name);
  else node.setAttribute(name, said);
}

export function hide(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

// A badge: a word, coloured by what it means.
export function badge(node, word) {
  text(node, word);
  attribute(node, "data-tone", toneOf(word));
  hide(node, !word);
}

const TONES = {
  serving: "good", succeeded: "good", done: "good", accepting: "good", ready: "new",
  draining: "leaving", stopping: "leaving", "stop-delay": "leaving", standby: "leaving", paused: "leaving",
  waiting: "leaving", cordoned: "leaving", killed: "bad", exited: "bad",
  booting: "new", starting: "new", spawned: "new", queued: "new", admitting: "new", shifting: "new",
  "cutting-over": "new", watching: "new", preparing: "new",
  aborted: "bad", "rolled-back": "bad", refused: "bad", "going-back": "bad", failed: "bad", hangs: "bad",
};

const toneOf = (word) => TONES[word] ?? "plain";

// Have exactly these items in the parent, in their order: rows that stay are the same elements.
export function keyed(parent, items, keyOf, make, update) {
  const before = (parent[ROWS] ??= new Map());
  const rows = new Map();
  for (const item of items) {
    let key = keyOf(item);
    while (rows.has(key)) key += "'";
    const row = before.get(key) ?? make(item);
    rows.set(key, row);
    update(row, item);
  }
  for (const [key, row] of before) if (!rows.has(key)) row.node.remove();
  let next = parent.firstChild;
  for (const row of rows.values()) {
    if (row.node === next) next = next.nextSibling;
    else parent.insertBefore(row.node, next);
  }
  parent[ROWS] = rows;
}
