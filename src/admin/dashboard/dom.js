// Elements from plain values. Text is always text: nothing that a server or a client sends is read as markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// A table in a region that scrolls sideways on narrow screens. A column: {title, number, cell(row)}.
export function table(caption, columns, rows, empty = "None.") {
  if (rows.length === 0) return h("p", { class: "faint" }, `${caption}: ${empty}`);
  const head = columns.map(({ title, number }) => h("th", { scope: "col", class: number ? "number" : null }, title));
  const body = rows.map((row) =>
    h("tr", {}, columns.map(({ number, cell, heading, wrap }) => {
      const tag = heading ? "th" : "td";
      return h(tag, { scope: heading ? "row" : null, class: number ? "number" : wrap ? "wrap" : null }, cell(row));
    })));
  return h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", {}, shown.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

const NUMBER = new Intl.NumberFormat("en");
export const count = (value) => NUMBER.format(Math.round(value));

export function rate(value) {
  return value >= 100 ? count(value) : value.toFixed(1);
}

export function seconds(value) {
  if (value === null || Number.isNaN(value)) return "–";
  if (value === Infinity) return "> 60 s";
  return value < 1 ? `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(1)} s`;
}

export function duration(milliseconds) {
  const total = Math.max(0, Math.round(milliseconds / 1000));
  const parts = [[Math.floor(total / 86400), "d"], [Math.floor(total / 3600) % 24, "h"], [Math.floor(total / 60) % 60, "m"], [total % 60, "s"]];
  const shown = parts.filter(([value]) => value > 0).slice(0, 2).map(([value, unit]) => value + unit);
  return shown.join(" ") || "0s";
}

// A time of the API: RFC 3339, or milliseconds since 1970.
export const millis = (at) => (typeof at === "number" ? at : Date.parse(at));

export function time(at) {
  if (at === null || at === undefined) return "–";
  const date = new Date(millis(at));
  return h("time", { datetime: date.toISOString(), title: date.toISOString() }, date.toLocaleString());
}

// A state with the class that colours it. The word says what the colour says.
const GOOD = ["ready", "up", "closed"];
const BAD = ["down", "open", "maint"];
export function word(value) {
  const kind = GOOD.includes(value) ? "good" : BAD.includes(value) ? "bad" : "warn";
  return h("span", { class: kind }, value);
}

// The last values as a line, without axes: what it shows stands in words beside it.
export function sparkline(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(1e-9, ...values);
  const points = values.map((value, index) => `${(100 * index) / Math.max(1, values.length - 1)},${19 - (18 * value) / most}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("class", "line");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

// Asks before something that cannot be undone. Resolves to whether it was confirmed.
export function confirmed(title, text, action) {
  const dialog = document.getElementById("confirm");
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  document.getElementById("confirm-yes").textContent = action;
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
