"""A WSGI shop whose sessions live in the memory of one process: Beaker's memory sessions, served by waitress.

python server.py NAME PORT
"""

import json
import sys
from urllib.parse import parse_qs

from beaker.middleware import SessionMiddleware
from waitress import serve


def field(environ, name):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return parse_qs(environ["wsgi.input"].read(length).decode())[name][0]


def login(environ, session):
    # Logging in changes the id, so that an id planted beforehand is useless.
    session.regenerate_id()
    session["user"] = field(environ, "name")
    session["items"] = []
    session.save()
    return "200 OK"


def add(environ, session):
    if "user" not in session:
        return "401 Unauthorized"
    session["items"] = [*session["items"], field(environ, "item")]
    session.save()
    return "200 OK"


def cart(_environ, session):
    return "200 OK" if "user" in session else "401 Unauthorized"


def logout(_environ, session):
    session.delete()  # and an expired cookie
    return "200 OK"


PAGES = {
    ("POST", "/login"): login,
    ("POST", "/cart"): add,
    ("GET", "/cart"): cart,
    ("POST", "/logout"): logout,
}


class Shop:
    def __init__(self, name):
        self.name = name

    def __call__(self, environ, start_response):
        page = PAGES.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        told = {"server": self.name}
        if page is None:
            status = "200 OK" if environ["PATH_INFO"] == "/healthz" else "404 Not Found"
        else:
            session = environ["beaker.session"]
            status = page(environ, session)
            told.update(user=session.get("user"), items=session.get("items"))
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(told).encode()]


if __name__ == "__main__":
    _, name, port = sys.argv
    sessions = {"session.type": "memory", "session.key": "SHOPSESSION", "session.httponly": True}
    serve(SessionMiddleware(Shop(name), sessions), host="127.0.0.1", port=int(port), threads=4, _quiet=True)
