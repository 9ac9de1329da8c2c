// The event list as it grows.

import * as api from "./api.js";
import { h, table, time } from "./dom.js";

const KINDS = ["state", "health", "breaker", "reload", "move", "session_ended", "store", "certificate"];
const SHOWN = 500;

export const columns = [
  { title: "Time", cell: (event) => time(event.at) },
  { title: "Kind", cell: (event) => event.kind },
  { title: "Pool", cell: (event) => event.pool ?? "" },
  { title: "Server", cell: (event) => event.server ?? "" },
  { title: "From", cell: (event) => event.from ?? "" },
  { title: "To", cell: (event) => event.to ?? "" },
  { title: "Reason", wrap: true, cell: (event) => event.reason ?? "" },
  { title: "By", cell: (event) => event.who ?? "" },
];

export function open(main, _, { report }) {
  const list = h("div");
  const kind = h("select", { id: "kind" }, h("option", { value: "" }, "all"), KINDS.map((one) => h("option", { value: one }, one)));
  const text = h("input", { id: "text", type: "search" });
  const status = h("p", { class: "faint", role: "status" });
  const abort = new AbortController();
  let items = [];
  const show = () => {
    const wanted = text.value.toLowerCase();
    const shown = items.filter((event) => (kind.value === "" || event.kind === kind.value) && JSON.stringify(event).toLowerCase().includes(wanted));
    list.replaceChildren(table("Events, newest first", columns, shown));
    status.textContent = `${shown.length} of the last ${items.length} events`;
  };
  kind.addEventListener("change", show);
  text.addEventListener("input", show);
  main.replaceChildren(h("h1", {}, "Events"),
    h("form", { class: "row", onsubmit: (event) => event.preventDefault() },
      h("div", {}, h("label", { for: "kind" }, "Kind"), kind), h("div", {}, h("label", { for: "text" }, "Contains"), text)),
    status, list);
  follow((fresh) => {
    items = [...fresh.reverse(), ...items].slice(0, SHOWN);
    show();
  }, abort.signal, report);
  return { metrics: false, close: () => abort.abort() };
}

// By long polls: an EventSource cannot send a token.
async function follow(add, signal, report) {
  let after = 0;
  let first = true;
  while (!signal.aborted) {
    try {
      const { items, next } = await api.get(`/api/v1/events?after=${after}${first ? "" : "&wait=30s"}`, { signal });
      if (signal.aborted) return;
      if (items.length > 0 || first) add(items);
      first = false;
      // A new process counts from the beginning.
      after = next ?? after;
    } catch (error) {
      if (signal.aborted) return;
      report(error);
      await new Promise((resolve) => setTimeout(resolve, 2000));
      after = 0;
      first = true;
    }
  }
}
