// The page's token: got for the key in the address, kept for this tab, sent with each request.

const KEPT = "stillup-token";

export class NotLetIn extends Error {}

let ended = () => {};
export const whenNotLetIn = (call) => (ended = call);

// Redeem the key in the address, if there is one, and take it out of it.
export async function enter() {
  const key = location.hash.slice(1);
  if (key) {
    history.replaceState(null, "", location.pathname);
    const answer = await fetch("/session", { method: "POST", body: key, cache: "no-store" });
    if (answer.ok) sessionStorage.setItem(KEPT, (await answer.json()).token);
  }
  if (!sessionStorage.getItem(KEPT)) throw refused();
}

export async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEPT)}` };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    sessionStorage.removeItem(KEPT);
    throw refused();
  }
  return answer;
}

function refused() {
  ended();
  return new NotLetIn();
}
