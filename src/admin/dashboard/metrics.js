// The proxy's own metrics, read from the text that Prometheus scrapes, and what two readings say together.

const LINE = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;

export function parse(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    const parts = LINE.exec(line);
    if (!parts) continue;
    const labels = {};
    for (const [, name, value] of (parts[2] ?? "").matchAll(LABEL)) labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    const value = parts[3] === "+Inf" ? Infinity : Number(parts[3]);
    if (!families.has(parts[1])) families.set(parts[1], []);
    families.get(parts[1]).push({ labels, value });
  }
  return families;
}

// Wanted: by label a value, a list of values, or a regular expression.
function fits(labels, wanted) {
  return Object.entries(wanted).every(([name, value]) => {
    if (value instanceof RegExp) return value.test(labels[name]);
    return Array.isArray(value) ? value.includes(labels[name]) : labels[name] === value;
  });
}

export function sum(families, name, wanted = {}) {
  return (families.get(name) ?? []).filter(({ labels }) => fits(labels, wanted)).reduce((total, { value }) => total + value, 0);
}

// Two readings with the time between them.
export class Interval {
  constructor(before, after, seconds) {
    Object.assign(this, { before, after, seconds });
  }

  // Per second. A counter that has fallen began again with a new process.
  rate(name, wanted = {}) {
    const difference = sum(this.after, name, wanted) - sum(this.before, name, wanted);
    return difference < 0 ? 0 : difference / this.seconds;
  }

  // A quantile of a histogram in seconds, the upper bound of its bucket; null without observations.
  quantile(name, wanted, share) {
    const counts = new Map();
    const add = (families, sign) => {
      for (const { labels, value } of families.get(`${name}_bucket`) ?? []) {
        if (!fits(labels, wanted)) continue;
        const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
        counts.set(bound, (counts.get(bound) ?? 0) + sign * value);
      }
    };
    add(this.after, 1);
    add(this.before, -1);
    const bounds = [...counts.keys()].sort((a, b) => a - b);
    const all = counts.get(Infinity) ?? 0;
    if (all <= 0) return null;
    return bounds.find((bound) => counts.get(bound) >= share * all) ?? Infinity;
  }
}
