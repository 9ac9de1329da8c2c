// The session explorer: where a session is, where it would go now and why; the sessions of a server.

import * as api from "./api.js";
import { confirmed, facts, h, table, time, word } from "./dom.js";
import { address } from "./overview.js";

const NAMED = [
  ["cookie", "Cookie header, or the token"],
  ["learned", "Id of the application"],
  ["client_ip", "Address of the client"],
  ["key", "Key, as in the log or the list below"],
];

export function open(main, [query], { refresh, report }) {
  const wanted = new URLSearchParams(query ?? "");
  const pool = h("select", { id: "pool", required: true });
  const by = h("select", { id: "by" }, NAMED.map(([value, title]) => h("option", { value }, title)));
  const value = h("input", { id: "value", type: "password", autocomplete: "off", size: 40, required: true });
  const answer = h("section", { "aria-live": "polite" });
  const list = h("section");
  const server = h("select", { id: "server" });
  const context = { answer, refresh, report, role: null, pools: [] };
  const explore = (event) => {
    event.preventDefault();
    explain(pool.value, by.value, value.value, context).catch(report);
  };
  const browse = (event) => {
    event?.preventDefault();
    browseList(pool.value, server.value, list, context).catch(report);
  };
  pool.addEventListener("change", () => fill(server, serversOf(context.pools, pool.value), "all"));
  main.replaceChildren(h("h1", {}, "Sessions"),
    h("form", { class: "row", onsubmit: explore },
      h("div", {}, h("label", { for: "pool" }, "Pool"), pool),
      h("div", {}, h("label", { for: "by" }, "What you have"), by),
      h("div", {}, h("label", { for: "value" }, "Its value; it is a secret, and is not kept"), value),
      h("button", { type: "submit" }, "Explain")),
    answer,
    h("h2", {}, "Sessions by server"),
    h("form", { class: "row", onsubmit: browse }, h("div", {}, h("label", { for: "server" }, "Server"), server), h("button", { type: "submit" }, "List")),
    list);
  return {
    metrics: false,
    update({ status, pools }) {
      Object.assign(context, { role: status.role, pools });
      if (pool.options.length > 0) return;
      fill(pool, pools.map((one) => one.name));
      if (wanted.has("pool")) pool.value = wanted.get("pool");
      fill(server, serversOf(pools, pool.value), "all");
      if (wanted.has("server")) {
        server.value = wanted.get("server");
        browse();
      }
    },
  };
}

const serversOf = (pools, name) => pools.find((pool) => pool.name === name)?.servers.map((server) => server.name) ?? [];

function fill(select, names, all) {
  const options = names.map((name) => h("option", { value: name }, name));
  select.replaceChildren(...(all ? [h("option", { value: "" }, all)] : []), ...options);
}

async function explain(pool, by, value, context) {
  if (by === "key") return showSession(await api.get(api.session(pool, value.trim())), pool, context);
  const explained = await api.change("POST", "/api/v1/explain", { pool, [by]: value });
  const { answer } = context;
  const { steps = [], key, session } = explained;
  const rest = Object.entries(explained).filter(([name, one]) => name !== "steps" && one !== null && typeof one !== "object");
  answer.replaceChildren(h("h2", {}, "What would happen to its next request"),
    facts(rest.map(([name, one]) => [name.replaceAll("_", " "), String(one)])),
    h("ol", { class: "steps" }, steps.map((step) => h("li", {}, typeof step === "string" ? step : describe(step)))));
  const found = key ?? session?.key;
  if (found) answer.append(...(await sessionParts(pool, found, context)));
}

const describe = (step) => Object.entries(step).filter(([, one]) => one !== null).map(([name, one]) => `${name.replaceAll("_", " ")}: ${typeof one === "object" ? JSON.stringify(one) : one}`).join(", ");

async function sessionParts(pool, key, context) {
  try {
    return parts(await api.get(api.session(pool, key)), pool, context);
  } catch (error) {
    if (error.status === 404) return [h("p", { class: "message note" }, "The table of this proxy does not have the session: its token is all there is.")];
    throw error;
  }
}

function showSession(session, pool, context) {
  context.answer.replaceChildren(...parts(session, pool, context));
}

function parts(session, pool, context) {
  const moves = session.moves ?? [];
  return [
    h("h2", {}, "Session ", h("code", {}, session.key)),
    facts([
      ["Server", h("a", { href: address(pool, session.server) }, session.server)],
      ["Moves so far", String(session.epoch)],
      ["Created", time(session.created)],
      ["Last seen", time(session.last_seen)],
      ["Source", session.source],
    ]),
    moves.length === 0 ? null : table("Its last moves", [
      { title: "Time", cell: (move) => time(move.at) },
      { title: "From", cell: (move) => move.from },
      { title: "To", cell: (move) => move.to },
      { title: "Reason", cell: (move) => move.reason },
    ], moves),
    context.role === "viewer" ? null : actions(session, pool, context),
  ].filter(Boolean);
}

function actions(session, pool, context) {
  const path = api.session(pool, session.key);
  const target = h("select", { id: "target" });
  fill(target, serversOf(context.pools, pool).filter((name) => name !== session.server));
  const move = async () => {
    if (!(await confirmed("Move this session?", `Its next request goes to ${target.value}.`, "Move"))) return;
    await api.change("POST", `${path}/move`, { server: target.value }).then((moved) => showSession(moved, pool, context)).catch(context.report);
  };
  const end = async () => {
    if (!(await confirmed("End this session?", "Its client begins a new one with its next request.", "End"))) return;
    await api.change("DELETE", path).then(() => context.answer.replaceChildren(h("p", { class: "message note" }, "The session has ended."))).catch(context.report);
  };
  return h("div", { class: "row actions" }, h("label", { for: "target" }, "Move to"), target,
    h("button", { type: "button", onclick: move }, "Move"), h("button", { type: "button", class: "danger", onclick: end }, "End"));
}

async function browseList(pool, server, list, context) {
  const rows = [];
  const more = h("button", { type: "button" }, "More");
  const read = async (cursor) => {
    const query = new URLSearchParams({ pool, limit: "100" });
    if (server) query.set("server", server);
    if (cursor) query.set("cursor", cursor);
    const page = await api.get(`/api/v1/sessions?${query}`);
    rows.push(...page.items);
    const open = (session) => h("button", { type: "button", onclick: () => {
      sessionParts(pool, session.key, context).then((shown) => {
        context.answer.replaceChildren(...shown);
        context.answer.scrollIntoView();
      }).catch(context.report);
    } }, session.key);
    list.replaceChildren(table(`Sessions of ${server || "all servers"}: ${rows.length} shown`, [
      { title: "Key", heading: true, cell: open },
      { title: "Server", cell: (session) => session.server },
      { title: "Moves", number: true, cell: (session) => String(session.epoch) },
      { title: "Created", cell: (session) => time(session.created) },
      { title: "Last seen", cell: (session) => time(session.last_seen) },
      { title: "Source", cell: (session) => session.source ?? "" },
    ], rows));
    if (page.next) list.append(more);
    more.onclick = () => read(page.next).catch(context.report);
  };
  await read(null);
}
