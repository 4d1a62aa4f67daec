// The news: lines of JSON, for as long as the dashboard's process lives; asked for again when it does not answer.

import { NotLetIn, ask } from "./session.js";

const PAUSES = [500, 1000, 2000, 4000];

export async function follow(feed, lost) {
  for (let failures = 0; ; failures++) {
    try {
      await read(await ask("/api/stream"), (message) => {
        failures = 0;
        feed(message);
      });
    } catch (error) {
      if (error instanceof NotLetIn) return;
    }
    lost();
    const pause = PAUSES[Math.min(failures, PAUSES.length - 1)];
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

async function read(answer, feed) {
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) feed(JSON.parse(line));
  }
}
