// Figures for people.

const WORDS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const whole = (number) => WORDS.format(number);

export function few(number) {
  return number >= 100 || number === 0 ? whole(number) : number.toFixed(number >= 10 ? 1 : 2);
}

export function bytes(number) {
  if (number < 1024) return `${whole(number)} B`;
  for (const unit of ["KiB", "MiB", "GiB"]) {
    number /= 1024;
    if (number < 1024 || unit === "GiB") return `${number < 10 ? number.toFixed(1) : whole(number)} ${unit}`;
  }
}

// How long something took.
export function took(seconds) {
  const thousandths = seconds * 1000;
  if (seconds < 1) return `${thousandths < 9.95 ? Number(thousandths.toFixed(1)) : Math.round(thousandths)} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : lasts(seconds);
}

// How long something lasts, or has lasted, in whole seconds.
export function lasts(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes, rest] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60, all % 60];
  const two = (number) => String(number).padStart(2, "0");
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${two(minutes)} min`;
  return minutes ? `${minutes} min ${two(rest)} s` : `${rest} s`;
}

// What is left of a time: the last second is one, not none.
export const left = (seconds) => lasts(Math.ceil(seconds));

export const amount = (number, one) => `${whole(number)} ${number === 1 ? one : `${one}s`}`;

export const percent = (part) => `${(100 * part).toFixed(part < 0.0995 ? 1 : 0)} %`;

export const counts = (classes) =>
  Object.entries(classes).sort().map(([name, number]) => `${whole(number)} ${name}`).join(", ");
