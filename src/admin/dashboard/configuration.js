// What runs, since when, and what the last refused reload said.

import * as api from "./api.js";
import { confirmed, facts, h, time } from "./dom.js";

const shown = (value) => (value === null || value === undefined ? null : typeof value === "object" ? JSON.stringify(value) : String(value));

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
      result.replaceChildren(h("h2", {}, "The reload was refused"), h("pre", {}, problems(error.problem)));
    }
  } }, "Reload");
  main.replaceChildren(h("h1", {}, "Configuration"), h("p", { class: "actions" }, reload), result, body);
  return {
    metrics: false,
    update({ status }) {
      reload.hidden = status.role === "viewer";
      const { version, configuration = {}, last_reload: last, ...rest } = status;
      const others = Object.entries(rest).flatMap(([name, value]) => (value !== null && typeof value === "object"
        ? Object.entries(value).map(([inner, one]) => [`${name} ${inner}`, shown(one)]) : [[name, shown(value)]]));
      const flat = typeof configuration === "object" ? Object.entries(configuration).map(([name, value]) => [`configuration ${name}`, shown(value)]) : [["configuration", configuration]];
      body.replaceChildren(facts([["version", version], ...flat, ...others].map(([name, value]) => [name.replaceAll("_", " "), value])),
        ...(last ? [h("h2", {}, "Last reload"), lastReload(last)] : []));
    },
  };
}

function lastReload(last) {
  const errors = last.problems ?? last.errors ?? [];
  return h("div", {},
    facts([["At", last.at ? time(last.at) : null], ["Result", shown(last.result ?? last.success)]]),
    errors.length === 0 ? null : h("pre", {}, problems({ problems: errors })));
}

function problems(problem) {
  const list = problem.problems ?? problem.errors;
  if (!list) return problem.detail ?? problem.title ?? "refused";
  return list.map((one) => (typeof one === "string" ? one : one.text ?? one.message ?? JSON.stringify(one))).join("\n\n");
}
