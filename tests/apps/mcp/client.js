// The MCP client of the SDK, led by JSON lines on stdin, saying as JSON lines on stdout what happens to it.
// node client.js URL
// Commands: {"do":"begin"}, {"do":"tools"}, {"do":"call","tool":"count"}, {"do":"end"}, {"do":"ping","session":"…"}.
// Ends when stdin does.
"use strict";

const { createInterface } = require("node:readline");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { LoggingMessageNotificationSchema } = require("@modelcontextprotocol/sdk/types.js");

const [url] = process.argv.slice(2);
const say = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");

let client;
let transport;

async function watched(input, init) {
  const answer = await fetch(input, init);
  const stream = init.method === "GET" && answer.ok;
  say(stream ? "stream opened" : "answered", { method: init.method, status: answer.status });
  return answer;
}

const commands = {
  async begin() {
    await client?.close();
    client = new Client({ name: "homing-test", version: "1.0.0" });
    client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => say("announced", { by: params.data }));
    transport = new StreamableHTTPClientTransport(new URL(url), { fetch: watched });
    await client.connect(transport);
    say("begun", { session: transport.sessionId, server: client.getServerVersion().name });
  },
  async tools() {
    const { tools } = await client.listTools();
    say("tools", { names: tools.map((tool) => tool.name) });
  },
  async call({ tool }) {
    const result = await client.callTool({ name: tool });
    say("called", JSON.parse(result.content[0].text));
  },
  async end() {
    const session = transport.sessionId;
    await transport.terminateSession();
    say("ended", { session });
  },
  // A ping in the name of any session, also of one that was ended.
  async ping({ session }) {
    const headers = {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-session-id": session,
    };
    const body = JSON.stringify({ jsonrpc: "2.0", id: "ping", method: "ping" });
    const answer = await fetch(url, { method: "POST", headers, body });
    say("pinged", { status: answer.status, body: await answer.text() });
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    commands[command.do](command).catch((error) => say("failed", { code: error.code ?? null, message: error.message }));
  })
  .on("close", () => process.exit(0));
