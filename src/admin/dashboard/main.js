// The views by address, and one clock that reads what the open view shows. Nothing is read while the page is hidden.

import * as api from "./api.js";
import { h } from "./dom.js";
import * as overview from "./overview.js";
import * as server from "./server.js";
import * as sessions from "./sessions.js";
import * as events from "./events.js";
import * as configuration from "./configuration.js";
import { readings } from "./readings.js";

const VIEWS = [
  [/^#\/$/, "overview", overview],
  [/^#\/servers\/([^/]+)\/([^/]+)$/, "overview", server],
  [/^#\/sessions(?:\?(.*))?$/, "sessions", sessions],
  [/^#\/events(?:\?(.*))?$/, "events", events],
  [/^#\/configuration$/, "configuration", configuration],
];
const EVERY = 2000;
const main = document.getElementById("main");
const connection = document.getElementById("connection");

// What is shown now: {update, close, reads}. A view that was left has a lower generation, and its late responses are dropped.
let current = null;
let generation = 0;
let timer = 0;

function say(text, kind) {
  if (connection.textContent !== text) connection.textContent = text;
  connection.className = kind;
}

function report(error) {
  if (error instanceof api.Unreachable) say("The proxy does not answer. What is shown is old.", "bad");
  else say(error.message, "bad");
}

async function tick() {
  clearTimeout(timer);
  const mine = generation;
  if (!document.hidden && current !== null) {
    try {
      const state = await readings.read(current.metrics);
      if (mine !== generation) return;
      document.getElementById("version").textContent = state.status.version ?? "";
      say(state.restarted ? "The proxy was restarted." : "Connected", "good");
      current.update?.(state);
    } catch (error) {
      if (mine !== generation) return;
      report(error);
    }
  }
  timer = setTimeout(tick, EVERY);
}

function open() {
  const address = location.hash || "#/";
  const found = VIEWS.map(([pattern, name, view]) => [pattern.exec(address), name, view]).find(([match]) => match);
  current?.close?.();
  generation += 1;
  if (!found) {
    current = null;
    main.replaceChildren(h("h1", {}, "No such view"), h("p", {}, h("a", { href: "#/" }, "Overview")));
    return;
  }
  const [match, name, view] = found;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const mine = generation;
  current = view.open(main, match.slice(1), { refresh: tick, report: (error) => mine === generation && report(error) });
  document.title = `${main.querySelector("h1")?.textContent ?? "Homing"} – Homing`;
  tick();
}

addEventListener("hashchange", () => {
  open();
  main.focus();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) tick();
});
open();
