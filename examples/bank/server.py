"""A bank transfer of several steps, in the memory of the server that serves it.

    server.py NAME PORT FOLDER

A transfer that has begun must not go on elsewhere: another server knows nothing of it. The proxy in front refuses it then
(`on_server_down: refuse`), and the page says so. The ledger is a file that all servers share, as a bank's database is.
"""

import json
import os
import secrets
import sys
import threading
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAME, PORT, FOLDER = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
PAGE = (FOLDER / "page.html").read_text()
LEDGER = FOLDER / "ledger"
COOKIE = "BANKSESSION"
STEPS = ("amount", "recipient", "confirm", "done")
# What people know about, by session. Gone with the process.
transfers: dict = {}
lock = threading.Lock()


def entries() -> list:
    """What was sent, oldest first."""
    lines = LEDGER.read_text().splitlines() if LEDGER.exists() else []
    return [json.loads(line) for line in lines]


def send(transfer: dict) -> None:
    """Once, however often it is asked for."""
    if any(entry["id"] == transfer["id"] for entry in entries()):
        return
    sent = {key: transfer[key] for key in ("id", "amount", "recipient")} | {"server": NAME}
    with LEDGER.open("a") as file:
        file.write(json.dumps(sent) + "\n")


def advance(transfer: dict, form: dict) -> str | None:
    """One step; what is wrong with it."""
    step = transfer["step"]
    if step == "amount":
        amount = form.get("value", "")
        if not amount.isdecimal() or not 1 <= int(amount) <= 10_000:
            return "An amount is a whole number from 1 to 10,000."
        transfer["amount"] = int(amount)
    elif step == "recipient":
        if not 1 <= len(form.get("value", "").strip()) <= 40:
            return "Name a recipient."
        transfer["recipient"] = form["value"].strip()
    elif step == "confirm":
        send(transfer)
    else:
        return "This transfer is done. Begin another one."
    transfer["step"] = STEPS[STEPS.index(step) + 1]
    return None


class Bank(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def session(self) -> str | None:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        return cookie.value if cookie else None

    def reply(self, status: int, body: str, kind: str = "application/json", cookie: str | None = None) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if cookie:
            self.send_header("Set-Cookie", f"{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict")
        self.end_headers()
        self.wfile.write(data)

    def state(self, problem: str | None = None) -> str:
        transfer = transfers.get(self.session())
        return json.dumps({"server": NAME, "transfer": transfer, "ledger": entries(), "problem": problem})

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self.reply(200, "ok", "text/plain")
        elif self.path == "/":
            self.reply(200, PAGE, "text/html")
        elif self.path == "/state":
            self.reply(200, self.state())
        else:
            self.reply(404, '{"problem": "There is no such page."}')

    def do_POST(self) -> None:
        form = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        if self.headers.get("Sec-Fetch-Site") == "cross-site":
            self.reply(403, '{"problem": "Another site may not ask for this."}')
        elif self.path == "/begin":
            session = secrets.token_hex(16)
            transfers[session] = {"id": secrets.token_hex(8), "step": STEPS[0]}
            self.headers.replace_header("Cookie", f"{COOKIE}={session}") if "Cookie" in self.headers else \
                self.headers.add_header("Cookie", f"{COOKIE}={session}")
            self.reply(200, self.state(), cookie=session)
        elif self.path == "/next":
            with lock:
                transfer = transfers.get(self.session())
                problem = advance(transfer, form) if transfer else "This server knows of no transfer of yours. Begin one."
            self.reply(200, self.state(problem))
        elif self.path == "/demo/stop":
            self.reply(200, "{}")
            self.wfile.flush()
            # As a crash: nothing is tidied up.
            os._exit(1)
        else:
            self.reply(404, '{"problem": "There is no such page."}')

    def log_message(self, *_: object) -> None:
        pass


def end_with_the_demo() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_the_demo, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", PORT), Bank).serve_forever()
