"""The cloud's process: an HTTP server on loopback for EC2, for the instances' metadata, and for orders."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from attrs import define

from latent.testing.ec2.killing import Guard, end_cloud
from latent.testing.ec2.values import CONTROL, PASSWORD, Hypervisor

HOST = "127.0.0.1"
METADATA = "/machines/"
LOOK = 0.5
"""Seconds between two looks at whether the parent lives."""

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


@define
class Settings:
    """See `Cloud`. ``state_file``: where to write how it can be reached, readable by its owner alone."""

    region: str = "eu-west-1"
    hypervisor: Hypervisor | None = None
    pending: float = 0.2
    ending: float = 0.1
    key_id: str | None = None
    secret: str | None = None
    port: int = 0
    state_file: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Settings:
        settings = cls(**document)
        if isinstance(document.get("hypervisor"), dict):
            given = document["hypervisor"]
            settings.hypervisor = Hypervisor(given["environment"], tuple(given["path"]), given["at_once"])
        return settings


def serve(settings: Settings, *, child: bool, say: Callable[[Mapping[str, Any]], None]) -> None:
    """Run until SIGTERM, SIGINT or the order to stop, with ``child`` also until standard input is closed.

    ``say`` is told how it can be reached, once it can be.
    """
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    parent = os.getppid()
    folder = tempfile.mkdtemp(prefix="latent-ec2-")
    cloud = secrets.token_hex(8)
    guard = Guard(cloud, folder)
    try:
        with contextlib.ExitStack() as stack:
            state = _run(settings, Path(folder), cloud, ending, stack)
            if settings.state_file:
                _publish(Path(settings.state_file), state)
                stack.callback(_withdraw, Path(settings.state_file))
            say(state)
            _wait(ending, parent if child else None)
    finally:
        guard.close()
        shutil.rmtree(folder, ignore_errors=True)


def _run(settings: Settings, folder: Path, cloud: str, ending: threading.Event, stack: contextlib.ExitStack) -> dict[str, Any]:
    # After the guard was forked: these bring threads and much memory.
    from werkzeug.serving import WSGIRequestHandler, make_server

    from latent.testing.ec2.gate import Gate
    from latent.testing.ec2.machines import Machines
    from latent.testing.ec2.orders import Orders
    from latent.testing.ec2.region import Times
    from latent.testing.ec2.signatures import Credentials
    from latent.testing.ec2.site import furnish

    class Handler(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            """Nobody reads it."""

        def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
            """The client has gone, or is to think that we have."""
            self.close_connection = True

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    listener = socket.create_server((HOST, settings.port), backlog=1024)
    port = listener.getsockname()[1]
    address = f"http://{HOST}:{port}"
    made_up = Credentials.made_up()
    credentials = Credentials(settings.key_id or made_up.key_id, settings.secret or made_up.secret)
    machines = Machines(settings.hypervisor, folder, cloud, lambda life: f"{address}{METADATA}{life.nonce}", settings.ending)
    gate = Gate(machines, Times(settings.pending, settings.ending), credentials)
    password = secrets.token_urlsafe(24)

    def renew() -> dict[str, Any]:
        gate.forget()
        return {
            "endpoint_url": address,
            "host": HOST,
            "port": port,
            "pid": os.getpid(),
            "region": settings.region,
            "key_id": credentials.key_id,
            "secret": credentials.secret,
            "session_token": "",
            "password": password,
            **furnish(gate.region(settings.region).backend, settings.region),
        }

    front = Front(gate, Orders(gate, ending, renew), password)
    server = make_server(HOST, port, front, threaded=True, request_handler=Handler, fd=listener.fileno())
    server.daemon_threads = True  # type: ignore[attr-defined]
    state = renew()
    machines.start()
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="http", daemon=True)
    serving.start()
    stack.callback(machines.reap)
    stack.callback(end_cloud, cloud)
    stack.callback(listener.close)
    stack.callback(server.server_close)
    stack.callback(machines.close)
    stack.callback(serving.join)
    stack.callback(server.shutdown)
    return state


def _wait(ending: threading.Event, parent: int | None) -> None:
    while not ending.wait(0 if parent is not None else LOOK):
        if parent is None:
            continue
        ready, _, _ = select.select([sys.stdin], [], [], LOOK)
        if ready and not os.read(sys.stdin.fileno(), 4096):
            return
        if os.getppid() != parent:
            return


def _publish(path: Path, state: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(state, file)
    beside.replace(path)


def _withdraw(path: Path) -> None:
    path.unlink(missing_ok=True)


class Front:
    """The WSGI application. The root is EC2's; all else has a path."""

    def __init__(self, gate: Any, orders: Any, password: str) -> None:
        from latent.testing.ec2.metadata import Tokens

        self._gate, self._orders, self._password = gate, orders, password
        self._tokens = Tokens()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        headers = _headers(environ)
        body = _body(environ)
        if path.startswith(CONTROL):
            status, kind, text, more = self._order(path.removeprefix(CONTROL), headers, body)
        elif path.startswith(METADATA):
            status, kind, text, more = self._metadata(environ["REQUEST_METHOD"], path.removeprefix(METADATA), headers)
        else:
            status, kind, text, more = self._call(environ, path, headers, body)
        start_response(f"{status} -", [("Content-Type", kind), ("Content-Length", str(len(text))), *more.items()])
        return [text]

    def _call(
        self, environ: Any, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str, bytes, Mapping[str, str]]:
        from latent.testing.ec2.answers import Request
        from latent.testing.ec2.gate import Client

        request = Request.read(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), headers, body)
        connection = environ.get("werkzeug.socket")
        answer = self._gate.answer(request, Client(lambda: connection is not None and _gone(connection)))
        return answer.status, answer.type, answer.body, {}

    def _metadata(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes, Mapping[str, str]]:
        from latent.testing.ec2 import metadata

        nonce, _, rest = path.partition("/")
        with self._gate.lock:
            for region in self._gate.regions.values():
                for life in region.lives.values():
                    if life.nonce == nonce:
                        page = metadata.answer(life, self._tokens, method, rest, headers, time.time())
                        return page.status, "text/plain", page.body, page.headers
        return 404, "text/plain", b"there is no such machine", {}

    def _order(self, what: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str, bytes, Mapping[str, str]]:
        if not hmac.compare_digest(headers.get(PASSWORD.lower(), "").encode(), self._password.encode()):
            return 403, "text/plain", b"the password of the state file is needed", {}
        try:
            found = self._orders.carry_out(what, json.loads(body or b"{}"))
        except (LookupError, TypeError, ValueError) as error:
            return 400, "text/plain", f"{what}: {error}".encode(), {}
        return 200, "application/json", json.dumps(found).encode(), {}


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    found = {name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            found[name.replace("_", "-").lower()] = str(environ[name])
    return found


def _body(environ: Mapping[str, Any]) -> bytes:
    stream: IO[bytes] = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    if length:
        return stream.read(int(length))
    return stream.read() if environ.get("wsgi.input_terminated") else b""


def _gone(connection: socket.socket) -> bool:
    try:
        ready, _, _ = select.select([connection], [], [], 0)
        return bool(ready) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
