// A Socket.IO server as the manual's first chapter has it: every connection lives in the memory of one process, so with
// several of them a client's requests must keep coming to the one that it began on.
// node server.js NAME PORT
"use strict";

const { createServer } = require("node:http");
const { Server } = require("socket.io");

const [name, port] = process.argv.slice(2);

const http = createServer((request, response) => {
  response.statusCode = request.url === "/healthz" ? 200 : 404;
  response.end(name);
});

// The `sid` of a connection stands in the body of the first answer; with `cookie` also in a Set-Cookie, where a proxy
// can learn it. Clients send it back as ?sid=.
const io = new Server(http, { serveClient: false, cookie: { name: "io", path: "/", httpOnly: true, sameSite: "lax" } });

io.on("connection", (socket) => {
  let counted = 0;
  socket.on("count", (reply) => {
    counted += 1;
    reply({ server: name, count: counted, transport: socket.conn.transport.name });
  });
});

http.listen(Number(port), "127.0.0.1");
