// A workspace of several tenants, with a WebSocket that stays open: notes are in the memory of the server that has it.
//
//   node server.js NAME PORT FOLDER ADMIN POOL
//
// The tenant is the host (acme.localhost, globex.localhost), the version is the pool. Notes go to the next server with the
// session: the server gives them to the proxy with `Homing-Session-Data`, and gets them back after a move.
"use strict";

const { createHash, randomUUID } = require("node:crypto");
const { createServer, request } = require("node:http");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

const [name, port, folder, admin, pool] = process.argv.slice(2);
const page = readFileSync(join(folder, "page.html"), "utf8");
const COOKIE = "WORKSPACE";
const MAX_NOTES = 20;
// By session: tenant, notes, and the open sockets.
const workspaces = new Map();

const tenantOf = (req) => (req.headers.host ?? "").split(".")[0].replace(/[^a-z]/g, "") || "nobody";
const sessionOf = (req) => new RegExp(`(?:^|; )${COOKIE}=([0-9a-f-]{36})`).exec(req.headers.cookie ?? "")?.[1];

// The workspace of a session. One that comes from another server brings its notes, or is empty.
function workspaceOf(req, session) {
  let workspace = workspaces.get(session);
  const brought = req.headers["homing-session-data"];
  if (!workspace || brought) {
    const notes = brought ? JSON.parse(Buffer.from(brought, "base64").toString()) : [];
    workspace = { tenant: tenantOf(req), notes, sockets: workspace?.sockets ?? new Set(), moved: req.headers["homing-session-moved"] ?? null };
    workspaces.set(session, workspace);
  }
  return workspace;
}

function state(workspace) {
  const colleagues = [...workspaces.values()].filter((one) => one !== workspace && one.tenant === workspace.tenant).length;
  return { server: name, version: pool, tenant: workspace.tenant, notes: workspace.notes, colleagues, moved: workspace.moved };
}

function answer(res, status, body, headers = {}) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  res.writeHead(status, { "content-type": "application/json", ...headers });
  res.end(text);
}

// What the next server is to have.
const handedOver = (workspace) => ({ "homing-session-data": Buffer.from(JSON.stringify(workspace.notes)).toString("base64") });

function drain(res) {
  const body = JSON.stringify({ state: "drain" });
  const [hostname, adminPort] = admin.split(":");
  const options = { hostname, port: adminPort, method: "PATCH", path: `/api/v1/pools/${pool}/servers/${name}`,
    headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) } };
  request(options, (reply) => answer(res, reply.statusCode, { drained: reply.statusCode === 200 }))
    .on("error", (error) => answer(res, 502, { problem: error.message })).end(body);
}

async function note(req, res, workspace) {
  let text = "";
  for await (const piece of req) text += piece;
  workspace.notes = [...workspace.notes, JSON.parse(text).note.slice(0, 80)].slice(-MAX_NOTES);
  for (const socket of workspace.sockets) send(socket, state(workspace));
  answer(res, 200, state(workspace), handedOver(workspace));
}

const server = createServer((req, res) => {
  if (req.url === "/healthz") return answer(res, 200, "ok");
  const known = sessionOf(req);
  const session = known ?? randomUUID();
  const workspace = workspaceOf(req, session);
  const cookie = known ? {} : { "set-cookie": `${COOKIE}=${session}; Path=/; HttpOnly; SameSite=Strict` };
  if (req.url === "/" && req.method === "GET") return answer(res, 200, page, { "content-type": "text/html; charset=utf-8", ...cookie });
  if (req.url === "/state" && req.method === "GET") return answer(res, 200, state(workspace), { ...cookie, ...handedOver(workspace) });
  if (req.method === "POST" && req.headers["sec-fetch-site"] === "cross-site") return answer(res, 403, { problem: "another site may not ask for this" });
  if (req.url === "/notes" && req.method === "POST") return note(req, res, workspace).catch(() => answer(res, 400, { problem: "no note" }));
  if (req.url === "/demo/drain" && req.method === "POST") return drain(res);
  answer(res, 404, { problem: "there is no such page" });
});

// WebSocket (RFC 6455), as much as this page needs: text to the browser; from it only that it closes.
server.on("upgrade", (req, socket) => {
  const session = sessionOf(req);
  if (!session || req.url !== "/live") return socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  const accept = createHash("sha1").update(`${req.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  const workspace = workspaceOf(req, session);
  workspace.sockets.add(socket);
  const gone = () => { workspace.sockets.delete(socket); socket.destroy(); };
  socket.on("data", (data) => (data[0] & 0x0f) === 8 && gone()).on("error", gone).on("close", gone);
  send(socket, state(workspace));
});

function send(socket, value) {
  const text = Buffer.from(JSON.stringify(value));
  const length = text.length < 126 ? Buffer.from([text.length]) : Buffer.from([126, text.length >> 8, text.length & 255]);
  socket.write(Buffer.concat([Buffer.from([0x81]), length, text]));
}

// Ends with the demo.
process.stdin.on("end", () => process.exit()).resume();
server.listen(Number(port), "127.0.0.1");
