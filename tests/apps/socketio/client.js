// The Socket.IO client, led by JSON lines on stdin, saying as JSON lines on stdout what happens to it.
// node client.js URL OPTIONS
// Commands: {"do":"count"}. Ends when stdin does.
"use strict";

const { createInterface } = require("node:readline");
const { io } = require("socket.io-client");

const say = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");

// What a transport knows of the answer that broke it.
const reason = (error) => ({
  status: error?.context?.status ?? null,
  body: error?.context?.responseText ?? null,
  message: error?.message ?? null,
});

const [url, options] = process.argv.slice(2);
const socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 250, ...JSON.parse(options) });

// A new engine for each try to connect.
socket.io.on("open", () => {
  const engine = socket.io.engine;
  say("opened", { transport: engine.transport.name });
  engine.on("upgrade", (transport) => say("upgraded", { transport: transport.name }));
  engine.on("upgradeError", (error) => say("not upgraded", reason(error)));
});
socket.on("connect", () => say("connected"));
socket.on("connect_error", (error) => say("refused", reason(error)));
socket.on("disconnect", (why, details) => say("disconnected", { why, ...reason(details) }));

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    if (command.do !== "count") throw new Error(`no such command: ${line}`);
    socket.emit("count", (answer) => say("counted", answer));
  })
  .on("close", () => process.exit(0));
