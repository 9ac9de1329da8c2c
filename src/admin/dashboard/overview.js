// Pools and servers at a glance.

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
    card("Errors (5xx) a second", perSecond("homing_requests_total", { code: ["5xx"] }), "errors"),
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

export function open(main) {
  const body = h("div");
  main.replaceChildren(h("h1", {}, "Overview"), body);
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
      if (focused) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    },
  };
}
