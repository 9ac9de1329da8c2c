// An MCP server on streamable HTTP with sessions: each session's transport, tools and counter live in the memory of one
// process, found by the Mcp-Session-Id header.
// node server.js NAME PORT
"use strict";

// The SDK takes it for granted, and Node 18 has it under another name only.
globalThis.crypto ??= require("node:crypto").webcrypto;

const { randomUUID } = require("node:crypto");
const { createServer } = require("node:http");
const { McpServer } = require("@modelcontextprotocol/sdk/server/mcp.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");

const [name, port] = process.argv.slice(2);
const sessions = new Map();

function tools() {
  const server = new McpServer({ name, version: "1.0.0" }, { capabilities: { logging: {} } });
  let counted = 0;
  const text = (value) => ({ content: [{ type: "text", text: JSON.stringify(value) }] });
  server.registerTool("count", { description: "Counts in the session's memory." }, async () => {
    counted += 1;
    return text({ server: name, count: counted });
  });
  // A message without a request that it belongs to: it goes over the session's open stream.
  server.registerTool("announce", { description: "Says something on the session's stream." }, async () => {
    await server.server.sendLoggingMessage({ level: "info", data: name });
    return text({ server: name });
  });
  return server;
}

async function begin() {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
  });
  await tools().connect(transport);
  return transport;
}

const http = createServer(async (request, response) => {
  if (request.url === "/healthz") return response.end(name);
  const id = request.headers["mcp-session-id"];
  const transport = id === undefined ? await begin() : sessions.get(id);
  if (transport) return transport.handleRequest(request, response);
  // The specification: 404 tells the client to begin a new session.
  const error = { code: -32001, message: `Session not found on ${name}` };
  response.writeHead(404, { "content-type": "application/json" });
  response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
});

http.listen(Number(port), "127.0.0.1");
