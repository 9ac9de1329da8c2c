// Pools and servers at a glance.

import * as api from "./api.js";
import { count, h, rate, seconds, sparkline, table, word } from "./dom.js";
import { stickiness } from "./readings.js";
import { sum } from "./metrics.js";

const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);

function cards({ interval, history, metrics }) {
  const card = (title, value, key) =>
    h("li", { class: "card" }, h("h2", {}, title), h("p", { class: "value" }, value),
      key && history.length > 1 ? sparkline(history.map((entry) => entry[key] ?? 0)) : null);
  const perSecond = (name, wanted) => (interval === null ? "–" : rate(interval.rate(name, wanted)));
  const latency = (share) => {
    const bound = interval?.quantile("homing_request_duration_seconds", {}, share) ?? null;
    return bound === null ? "–" : bound === Infinity ? seconds(bound) : `≤ ${seconds(bound)}`;
  };
  return h("ul", { class: "cards" },
    card("Requests a second", perSecond("homing_requests_total"), "requests"),
    card("Errors (5xx) a second", perSecond("homing_requests_total", { code: /^5/ }), "errors"),
    card("Sessions on their server", interval === null ? "–" : percent(stickiness(interval)), "stickiness"),
    card("Moves a second", perSecond("homing_session_moves_total"), "moves"),
    card("Duration, median", latency(0.5)),
    card("Duration, 99 %", latency(0.99)),
    card("Sessions in the table", count(sum(metrics, "homing_sessions"))));
}

export const address = (pool, server) => `#/servers/${encodeURIComponent(pool)}/${encodeURIComponent(server)}`;

export function drainText({ drain, sessions_complete: complete }) {
  if (!drain) return "";
  if (drain.empty) return "empty";
  return `${count(drain.bound)}${complete ? "" : " known"} to go`;
}

function servers(pool, interval) {
  const of = (server) => ({ pool: pool.name, server: server.name });
  const perSecond = (server, wanted) => (interval === null ? "–" : rate(interval.rate("homing_server_responses_total", { ...of(server), ...wanted })));
  return [
    { title: "Server", heading: true, cell: (server) => h("a", { href: address(pool.name, server.name) }, server.name) },
    { title: "State", cell: (server) => [word(server.state), server.override ? " (set)" : "", server.removed ? " (removed)" : ""] },
    { title: "Health", cell: (server) => word(server.health) },
    { title: "Breaker", cell: (server) => (server.breaker ? word(server.breaker) : "–") },
    { title: "Weight", number: true, cell: (server) => String(server.effective_weight) },
    { title: "Sessions", number: true, cell: (server) => count(server.sessions) },
    { title: "In flight", number: true, cell: (server) => count(server.in_flight) },
    { title: "Queued", number: true, cell: (server) => count(server.queued) },
    { title: "Streams", number: true, cell: (server) => count(server.streams) },
    { title: "Responses/s", number: true, cell: (server) => perSecond(server, {}) },
    { title: "5xx/s", number: true, cell: (server) => perSecond(server, { class: "5xx" }) },
    { title: "First byte, 99 %", number: true, cell: (server) => seconds(interval?.quantile("homing_server_response_seconds", of(server), 0.99) ?? null) },
    { title: "Drain", cell: drainText },
  ];
}

// The proxy's own samples of the last hour: they are there although nobody had the page open.
function lastHour(samples) {
  const card = (title, value, values) =>
    h("li", { class: "card" }, h("h3", {}, title), h("p", { class: "value" }, value), values.length > 1 ? sparkline(values) : null);
  const total = (key) => samples.reduce((sum, sample) => sum + sample[key], 0);
  const kept = total("kept");
  const all = kept + total("elsewhere");
  const shares = samples.filter((one) => one.kept + one.elsewhere > 0).map((one) => one.kept / (one.kept + one.elsewhere));
  const crowded = samples.map((one) => one.imbalance).filter((value) => value !== null);
  const times = (value) => `${value.toFixed(2)} of its share`;
  return [
    h("h2", {}, "Last hour"),
    h("ul", { class: "cards" },
      card("Sessions on their server", percent(all > 0 ? kept / all : null), shares),
      card("Moves", count(total("moves")), samples.map((one) => one.moves)),
      card("Errors (5xx)", count(total("errors")), samples.map((one) => one.errors)),
      card("Most crowded server", crowded.length > 0 ? times(crowded[crowded.length - 1]) : "–", crowded)),
  ];
}

// The proxy samples every 30 seconds.
const SAMPLED_EVERY = 30_000;

export function open(main, _, { report }) {
  const [body, hour] = [h("div"), h("section", { "aria-label": "Last hour" })];
  main.replaceChildren(h("h1", {}, "Overview"), body, hour);
  let readAt = -Infinity;
  const readHour = () => {
    if (performance.now() - readAt < SAMPLED_EVERY) return;
    readAt = performance.now();
    api.get("/api/v1/history").then(({ items }) => hour.replaceChildren(...lastHour(items))).catch(report);
  };
  return {
    metrics: true,
    update(state) {
      // A link that has the focus keeps it.
      const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      const pools = state.pools.map((pool) => [
        h("h2", {}, pool.name),
        table(`Servers of ${pool.name}, balance ${pool.balance}`, servers(pool, state.interval), pool.servers),
      ]);
      body.replaceChildren(cards(state), ...pools.flat());
      readHour();
      if (focused) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    },
  };
}
