// One server: what is in force, since when and by whom; drain, ready, maint.

import * as api from "./api.js";
import { confirmed, count, duration, facts, h, millis, table, time, word } from "./dom.js";
import { columns } from "./events.js";

const STATES = ["ready", "drain", "maint"];
const EFFECT = {
  ready: "New sessions go to it again.",
  drain: "It keeps its sessions and gets no new ones.",
  maint: "Its sessions move at once; open connections are ended after the grace.",
};

function drain({ drain: progress, sessions_complete: complete }) {
  if (!progress) return null;
  const now = Date.now();
  const silent = progress.silent_until === null ? null : millis(progress.silent_until) - now;
  const deadline = progress.deadline === null ? null : millis(progress.deadline);
  const part = deadline === null ? null : Math.min(1, (now - millis(progress.started)) / Math.max(1, deadline - millis(progress.started)));
  return [
    h("h2", {}, "Drain"),
    part === null ? null : h("p", {}, h("label", { for: "deadline" }, "Time until the deadline"), h("progress", { id: "deadline", max: 1, value: part })),
    facts([
      ["Since", time(progress.started)],
      ["Deadline", deadline === null ? "none: it waits for the last session" : time(deadline)],
      ["Sessions still bound", `${count(progress.bound)}${complete ? "" : ", as far as this proxy knows"}`],
      ["Clients that may still come back", silent === null ? "none" : `for another ${duration(silent)}`],
      ["Empty", progress.empty ? "yes: it can be stopped" : "no"],
    ]),
  ];
}

function details(server) {
  const set = server.override;
  return facts([
    ["Address", server.address],
    ["State in force", word(server.state)],
    ["State in the file", server.file_state],
    ["Set at run time", set ? `${[set.state, set.weight === null ? null : `weight ${set.weight}`].filter(Boolean).join(", ")} by ${set.by}` : "no"],
    ["Set at", set ? time(set.at) : null],
    ["Health", word(server.health)],
    ["Breaker", server.breaker ? word(server.breaker) : null],
    ["Weight", `${server.weight}, ${server.effective_weight} in effect`],
    ["Sessions", `${count(server.sessions)}${server.sessions_complete ? "" : " known; more may come back with their tokens"}`],
    ["Requests in flight", count(server.in_flight)],
    ["Requests queued", count(server.queued)],
    ["Open streams", count(server.streams)],
  ]);
}

export function open(main, [encodedPool, encodedName], { refresh, report }) {
  const [pool, name] = [decodeURIComponent(encodedPool), decodeURIComponent(encodedName)];
  const path = api.server(pool, name);
  const [body, log] = [h("div"), h("div")];
  const run = (title, text, action, work) => async () => {
    if (!(await confirmed(title, text, action))) return;
    try {
      await work();
      await refresh();
    } catch (error) {
      report(error);
    }
  };
  const buttons = STATES.map((state) =>
    h("button", {
      type: "button", "data-state": state, class: state === "maint" ? "danger" : null,
      onclick: run(`Set ${pool}/${name} to ${state}?`, EFFECT[state], `Set to ${state}`, () => api.change("PATCH", path, { state })),
    }, `Set to ${state}`));
  const undo = h("button", {
    type: "button", onclick: run(`Undo for ${pool}/${name}?`, "What the file says is in force again.", "Undo", () => api.change("DELETE", `${path}/override`)),
  }, "Undo: as the file says");
  const actions = h("p", { class: "actions", hidden: true }, buttons, " ", undo);
  main.replaceChildren(h("h1", {}, `${pool}/${name}`), actions, body, log);
  readLog(pool, name, log).catch(report);
  return {
    metrics: false,
    update({ status, pools }) {
      const server = pools.find((one) => one.name === pool)?.servers.find((one) => one.name === name);
      if (!server) {
        actions.hidden = true;
        body.replaceChildren(h("p", { class: "message" }, `The configuration has no server ${pool}/${name}.`));
        return;
      }
      actions.hidden = status.role === "viewer";
      for (const button of buttons) button.disabled = (server.override?.state ?? server.file_state) === button.dataset.state;
      undo.disabled = server.override === null;
      body.replaceChildren(details(server), ...[drain(server)].flat(2).filter(Boolean));
    },
  };
}

async function readLog(pool, name, log) {
  const { items } = await api.get("/api/v1/events?after=0");
  const own = items.filter((event) => event.pool === pool && [event.server, event.from, event.to].includes(name)).slice(-50).reverse();
  log.replaceChildren(h("h2", {}, "Last events"), table("Events of this server", columns, own));
}
