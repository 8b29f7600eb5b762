"""A controller that dies at one point after the other, and is started again each time; what is asked of it is asked again."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
from attrs import define, field, frozen

from tests.e2e.site import Site
from tests.killpoints.lives import PATIENCE, Life, Zygote
from tests.killpoints.providers import Provider

PAUSE = 0.05
"""Seconds between two looks."""

ANSWER = 60.0
"""Seconds that an answer may take."""

_pause = threading.Event()

# A step that another one of the same build runs beside is one too many.
_STEP = """exec 9>>{directory}/build.{number}.lock
flock -n 9 || echo build {number} >> {directory}/twice
echo ran >> {directory}/ran.{number}
echo said by {number}
{work}
"""


@frozen
class At:
    """Where a controller is to die: at the point, when it has come to it ``passes`` times before."""

    point: str
    passes: int = 0


@define
class Outcome:
    """``error``: what was wrong after a death at the point; "" if nothing was."""

    point: str
    scenario: str
    error: str = ""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("latent", timeout=ANSWER)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Interrupted(Exception):
    """The controller died before it had answered."""


@define(eq=False)
class KillSite(Site):
    """``chain``: where its controllers die, one after the other; each is taken off when that has happened.

    ``constants``: as in `tests.killpoints.zygote`.
    """

    directory: Path
    zygote: Zygote
    provider: Provider
    chain: deque[At]
    constants: Mapping[str, Any]
    died: list[At] = field(factory=list)
    life: Life | None = None
    _asked: int = 0

    def __attrs_post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        (self.directory / "orders").mkdir()

    def configure(self, config: str) -> None:
        (self.directory / "master.cfg").write_text(
            "from latent.plugins import util, worker\nfrom tests.killpoints import workers\n\n" + config
        )

    # --- lives ---------------------------------------------------------------------------------------------------------------

    @property
    def at(self) -> str:
        """The point that its controller is to die at; "" if none."""
        return self.chain[0].point if self.chain else ""

    def live(self) -> None:
        """Have a controller that is up, whatever that takes."""
        while True:
            if self.life is None or self.life.ended.is_set():
                self._bury()
                head = self.chain[0] if self.chain else At("")
                self.life = self.zygote.start(self.directory, head.point or None, head.passes, self.constants)
            if self.life.wait_up():
                return
            self.life.wait_ended()

    def _bury(self) -> None:
        if self.life is None:
            return
        life, self.life = self.life, None
        if life.died:
            self.died.append(self.chain.popleft())
        elif life.code != -signal.SIGKILL:
            raise AssertionError(f"the controller ended with code {life.code}: {life.said}\n{self.log()}")

    def kill(self) -> None:
        """End the controller where it happens to be."""
        assert self.life is not None
        os.kill(self.life.pid, signal.SIGKILL)
        self.life.wait_ended()

    def passed(self) -> str:
        """The points that the last life came to."""
        return (self.directory / "passed").read_text()

    # --- asking --------------------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, **body: Any) -> httpx.Response:
        """What is only looked at is looked at again after a death; else raises Interrupted."""
        while True:
            self.live()
            life = self.life
            assert life is not None
            try:
                return self._answer(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                # Whoever is dying has broken the connection off, or does so now.
                if not life.ended.wait(PATIENCE):
                    raise AssertionError(f"{method} {path}: {error!r}, and the controller lives") from error
                if method != "GET":
                    raise Interrupted from error

    def _answer(self, method: str, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """httpx does not close a socket that could not be connected, and makes a TLS context for each client."""
        state = self.directory / "state"
        headers = {"Authorization": f"Bearer {(state / 'token').read_text().strip()}", "Content-Type": "application/json"}
        content = json.dumps(body) if body else None
        with closing(_Connection(json.loads((state / "api.json").read_text())["socket"])) as connection:
            connection.request(method, f"/api/v1/{path}", content, headers)
            answer = connection.getresponse()
            request = httpx.Request(method, f"http://latent/api/v1/{path}")
            return httpx.Response(answer.status, content=answer.read(), request=request).raise_for_status()

    def order(self, what: str) -> None:
        """Something that the plugin is to do once, see `tests.killpoints.workers`."""
        (self.directory / "orders" / what).touch()

    def submit(self, command: str = ":", **more: Any) -> int:
        """A build of one step, whatever dies meanwhile; its id."""
        number = self.next_number()
        return self.ask_for(number, command=self.step(number, command), **more)

    def ask_for(self, number: int, **wanted: Any) -> int:
        """A build. One whose submission was not answered is not asked for twice."""
        while (found := self.find(number)) is None:
            try:
                return int(self.call("POST", "builds", properties={"number": number}, **wanted)["id"])
            except Interrupted:
                continue
        return found

    def next_number(self) -> int:
        """By which the site knows what it asks for."""
        self._asked += 1
        return self._asked

    def step(self, number: int | str, command: str = ":") -> str:
        """A step that leaves behind how often it ran."""
        return _STEP.format(directory=self.directory, number=number, work=command)

    def find(self, number: int) -> int | None:
        """The build that was asked for as ``number``, if it is there."""
        ours = [build["id"] for build in self.builds().values() if build["properties"].get("number") == number]
        assert len(ours) <= 1, f"build {number} is there {len(ours)} times"
        return ours[0] if ours else None

    def ran(self, build: int) -> int:
        """How often the build's step was begun."""
        number = self.build(build)["properties"]["number"]
        file = self.directory / f"ran.{number}"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def repeat(self, method: str, path: str, **body: Any) -> Any:
        """Ask for what may be asked for twice, until somebody answers."""
        while True:
            try:
                return self.answer(method, path, **body).json()
            except Interrupted:
                continue

    def finished(self, build: int) -> dict[str, Any]:
        """The build, when it is over."""
        self.wait(f"the end of build {build}", lambda: self.call("GET", f"builds/{build}?wait=5")["state"] == "finished")
        return self.build(build)

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        until = time.monotonic() + PATIENCE
        while not (answer := ready()):
            if time.monotonic() > until:
                raise AssertionError("\n".join([f"never came: {what}", *(str(told) for told in self._told()), self.log()]))
            _pause.wait(PAUSE)
        return answer

    def _told(self) -> Iterator[Any]:
        for path in ("builds?limit=1000", "workers", "health"):
            yield self.call("GET", path)
        yield self.provider.left()

    def at_rest(self) -> None:
        """Wait until no worker has an instance, and nothing is left of any."""

        def resting() -> bool:
            states = {one["state"] for one in self.workers() if one["latent"]}
            return states <= {"NOT_SUBSTANTIATED"} and not self.ill("attempt") and not self.provider.left()

        self.wait("the end of all instances", resting)

    def ill(self, subject: str = "") -> list[str]:
        """What the health says that is not well."""
        items = self.call("GET", "health")["items"]
        return [f"{one['subject']}: {one['message']}" for one in items if not one["ok"] and one["subject"].startswith(subject)]

    # --- what must be true ---------------------------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """What must never be, at any time."""
        twice = self.directory / "twice"
        found = [*self.provider.doubled(), *(twice.read_text().splitlines() if twice.exists() else [])]
        with closing(self._database()) as database:
            rows = database.execute("SELECT build_id, count(*) FROM runs WHERE status IN ('pending', 'running') GROUP BY 1")
            found += [f"build {build} has {count} runs at once" for build, count in rows if count > 1]
            for attempt in self.provider.beside():
                # What is condemned is on its way out, and the worker need not wait for that.
                before = "SELECT 1 FROM attempts WHERE worker = ? AND number < ? AND condemned_at IS NOT NULL"
                if database.execute(before, attempt.split("#")).fetchone() is None:
                    found.append(f"{attempt} was there beside another")
        return sorted(set(found))

    def left_on_disk(self) -> list[str]:
        """What the store, once its controller is gone, has of anything that is not over."""
        with closing(self._database()) as database:
            attempts = database.execute("SELECT worker, number FROM attempts WHERE stopped_at IS NULL AND gone_at IS NULL")
            runs = database.execute("SELECT id, status FROM runs WHERE status IN ('pending', 'running')")
            return [
                *(f"attempt {worker}#{number} counts as live" for worker, number in attempts),
                *(f"run {number} is {status}" for number, status in runs),
            ]

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.directory}/state/latent.sqlite?mode=ro", uri=True)

    def controller_id(self) -> str:
        with closing(self._database()) as database:
            return str(database.execute("SELECT value FROM meta WHERE name = 'controller_id'").fetchone()[0])

    def change_disk(self, *statements: str) -> None:
        """While there is no controller: damage the store."""
        with closing(sqlite3.connect(self.directory / "state" / "latent.sqlite")) as database, database:
            for statement in statements:
                database.execute(statement)

    # --- its end -------------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop it in order, and wait for that."""
        self.live()
        life = self.life
        assert life is not None
        with suppress(Interrupted):
            self.answer("POST", "stop", fast=True)
        life.wait_ended()
        if life.code == 0:
            self.life = None

    def end(self) -> None:
        """Whatever a test left is ended."""
        if self.life is not None and not self.life.ended.is_set():
            self.kill()
        self.provider.close()
