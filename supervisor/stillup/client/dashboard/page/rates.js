// What workers use in a second: differences of what they have used so far, by the supervisor's own clock.

const SPAN = 1.5; // seconds: a worker reports once a second

export class Rates {
  #seen = new Map();
  #uptime = 0;

  // Look at all workers of a status.
  look(status) {
    if (status.uptime < this.#uptime) this.#seen.clear();
    this.#uptime = status.uptime;
    const now = new Map();
    for (const { workers } of status.generations)
      for (const worker of workers) now.set(keyOf(worker), this.#next(worker));
    this.#seen = now;
  }

  // Its share of a processor and requests a second; null until two reports are there.
  of(worker) {
    return this.#seen.get(keyOf(worker))?.rate ?? null;
  }

  #next(worker) {
    const before = this.#seen.get(keyOf(worker));
    const here = { at: this.#uptime, cpu: worker.cpu, requests: worker.requests };
    if (!before) return { ...here, rate: null };
    const seconds = here.at - before.at;
    if (seconds < SPAN) return before;
    const rate = { cpu: Math.max(0, here.cpu - before.cpu) / seconds, requests: Math.max(0, here.requests - before.requests) / seconds };
    return { ...here, rate };
  }
}

export const keyOf = (worker) => `${worker.id} ${worker.pid}`;
