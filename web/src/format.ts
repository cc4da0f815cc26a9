// Numbers as people read them.

const whole = new Intl.NumberFormat("en");

export const count = (n: number) => whole.format(Math.round(n));

export const plural = (n: number, one: string, many = `${one}s`) =>
  `${count(n)} ${n === 1 ? one : many}`;

// Three digits that count.
function three(n: number): string {
  return n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2);
}

export const seconds = (ms: number) =>
  ms < 1000 ? `${ms.toFixed(0)} ms` : `${three(ms / 1000)} s`;

export const rate = (perSecond: number) => `${three(perSecond)} tok/s`;

export const percent = (part: number, all: number) =>
  all > 0 ? `${((100 * part) / all).toFixed(part > 0 && part < all ? 1 : 0)} %` : "–";

// The beginning of a prompt on one line, without the marks of a chat template.
export const gist = (text: string) =>
  text
    .replace(/<\|[^|>]*\|>/g, " ")
    .replace(/\s+/g, " ")
    .trim();

export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit + 1 < units.length) {
    n /= 1024;
    unit++;
  }
  return unit === 0 ? `${n} B` : `${three(n)} ${units[unit]}`;
}
