// What runs, since when, and what the last refused reload said.

import * as api from "./api.js";
import { confirmed, facts, h, time } from "./dom.js";

const shown = (value) => (Array.isArray(value) ? value.join(", ") : value === null ? null : String(value));

export function open(main, _, { refresh, report }) {
  const [body, result] = [h("div"), h("div", { "aria-live": "polite" })];
  const reload = h("button", { type: "button", hidden: true, onclick: async () => {
    if (!(await confirmed("Reload the configuration?", "The file is read and checked; a file with problems changes nothing.", "Reload"))) return;
    try {
      await api.change("POST", "/api/v1/reload");
      result.replaceChildren(h("p", { class: "message note" }, "Reloaded."));
      await refresh();
    } catch (error) {
      if (!(error instanceof api.Refused) || error.status !== 422) return report(error);
      result.replaceChildren(h("h2", {}, "The reload was refused"), h("pre", {}, (error.problem.problems ?? [error.message]).join("\n\n")));
    }
  } }, "Reload");
  main.replaceChildren(h("h1", {}, "Configuration"), h("p", { class: "actions" }, reload), result, body);
  return {
    metrics: false,
    update({ status }) {
      reload.hidden = status.role === "viewer";
      const { configuration, last_reload: last, store, table, certificates, ...rest } = status;
      const parts = { ...rest, ...prefixed("configuration", configuration), ...prefixed("store", store), ...prefixed("table", table) };
      const expiries = certificates.map(({ name, expires }) => [`certificate ${name} expires`, time(expires)]);
      const pairs = Object.entries(parts).map(([name, value]) => [name.replaceAll("_", " "), shown(value)]);
      body.replaceChildren(facts([...pairs, ...expiries]), ...(last ? lastReload(last) : []));
    },
  };
}

const prefixed = (prefix, object) => Object.fromEntries(Object.entries(object).map(([name, value]) => [`${prefix} ${name}`, value]));

function lastReload({ at, who, result, changes, problems }) {
  return [
    h("h2", {}, "Last reload"),
    facts([["At", time(at)], ["By", who], ["Result", result]]),
    changes.length === 0 ? null : h("ul", {}, changes.map((change) => h("li", {}, change))),
    problems.length === 0 ? null : h("pre", {}, problems.join("\n\n")),
  ].filter(Boolean);
}
