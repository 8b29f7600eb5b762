"""Agents of every kind before one controller, all as processes: our own, a stock `buildbot-worker`, a Woodpecker agent, a bot."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from tests.e2e import agents
from tests.e2e.site import Site
from tests.gateways.bots.client import M
from tests.gateways.bots.program import RESULT

MakeSite = Callable[[str], Site]

MASTER = """
from tests.e2e import agents

def step(number, end, **more):
    line = "echo once >> %(prop:folder)s/%(prop:name)s.{0}; echo {0} of %(prop:name)s on $LATENT_WORKER; {1}"
    return util.Step(util.Interpolate(line.format(number, end)), name=str(number), **more)

def declare(kind, **more):
    labels = {"kind": kind, **({"agent": "bot"} if kind == "bot" else {})}
    c["workers"] += [
        worker.Worker(kind, "password of " + kind, max_builds=3, labels={**labels, "home": "plain"}),
        worker.ProcessLatentWorker(f"latent-{kind}", max_builds=3, labels={**labels, "home": "latent"}, **more),
    ]

c["workers"] = []
declare("ours")
declare("buildbot", command=agents.BUILDBOT)
declare("woodpecker", command=agents.WOODPECKER)
declare("bot", command=agents.BOT)
c["builders"] = [
    util.Builder("work", [step(1, "true"), step(2, "exit %(prop:code)s"), step(3, "true"), step(4, "true", always_run=True)]),
    util.Builder("endless", [step(1, "exec sleep 100000"), step(2, "true")]),
]
c["protocols"] = {"peer": {}, "pb": {}, "bots": {}}
"""

SCRIPT = "type.googleapis.com/tests.Script"
ANY = ""
"""Of a label: the build does not require it."""


@frozen
class Asked:
    """A build that is asked for. ``lasting``: it ends only when it is cancelled, which is done when it runs, or at once."""

    number: int
    kind: str
    home: str
    code: int = 0
    lasting: bool = False
    at_once: bool = False
    folder: Path = field(kw_only=True)

    @property
    def name(self) -> str:
        return f"build-{self.number}"

    @property
    def payload(self) -> bool:
        return self.kind == "bot"

    @property
    def body(self) -> dict[str, Any]:
        labels = {name: value for name, value in (("kind", self.kind), ("home", self.home)) if value}
        if not self.payload:
            about = {"name": self.name, "folder": str(self.folder), "code": str(self.code)}
            return {"builder": "endless" if self.lasting else "work", "properties": about, "labels": labels}
        end = "exec sleep 100000" if self.lasting else f"exit {self.code}"
        script = f"echo once >> {self.folder}/{self.name}.1; echo 1 of {self.name} on $LATENT_WORKER; {end}"
        payload = {"type_url": SCRIPT, "value": base64.b64encode(script.encode()).decode()}
        return {"name": self.name, "payload": payload, "labels": labels}

    @property
    def steps(self) -> Sequence[int]:
        """Those that are carried out, if the build is not cancelled."""
        if self.lasting or self.payload:
            return (1,)
        return (1, 2, 4) if self.code else (1, 2, 3, 4)

    def said(self, worker: str) -> list[str]:
        return [f"{step} of {self.name} on {worker}" for step in self.steps]

    @property
    def written(self) -> dict[int, str]:
        """What each step has written into its file."""
        files = self.folder.glob(f"{self.name}.*")
        return {int(path.suffix[1:]): path.read_text() for path in files}


def asked(folder: Path) -> Iterator[Asked]:
    """400: every kind at every home; a fifth fails, a twentieth is cancelled."""
    kinds = ("ours", "buildbot", "woodpecker", "bot", ANY)
    for number in range(400):
        kind, home = kinds[number % 5], ("plain", "latent", ANY)[number // 5 % 3]
        turn = number // 15 % 20
        lasting = turn == 7 or (turn == 13 and number % 15 < 5)
        code = 1 + number % 200 if turn % 5 == 2 else 0
        yield Asked(number, kind, home, code=code, lasting=lasting, at_once=turn == 13, folder=folder)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Callable[[Site], dict[str, agents.Agent]]]:
    """Starts an agent of each kind for the plain workers; they are ended with the test."""
    started: dict[str, agents.Agent] = {}

    def start(site: Site) -> dict[str, agents.Agent]:
        for kind, made in agents.KINDS.items():
            started[kind] = made(tmp_path / f"agent-{kind}", site.port, kind, f"password of {kind}", 3)
        return started

    yield start
    for agent in started.values():
        agent.process.kill()
        agent.process.wait()


def test_four_kinds_of_agents(site: MakeSite, plain: Callable[[Site], dict[str, agents.Agent]], tmp_path: Path) -> None:
    """400 builds on plain and latent workers of four kinds: each goes where it may, ends once, and comes out as it should."""
    one = site(MASTER)
    one.latent("start")
    attached = plain(one)
    folder = tmp_path / "written"
    folder.mkdir()
    wanted = {one.call("POST", "builds", **ask.body)["id"]: ask for ask in asked(folder)}
    assert len(wanted) == 400
    ended: dict[int, dict[str, Any]] = {}
    lasting = {number: ask for number, ask in wanted.items() if ask.lasting}
    for number in [number for number, ask in lasting.items() if ask.at_once]:
        one.call("POST", f"builds/{number}/cancel")
        del lasting[number]

    def all_ended() -> bool:
        for number, ask in list(lasting.items()):
            if ask.written:
                one.call("POST", f"builds/{number}/cancel")
                del lasting[number]
        for number, build in one.builds().items():
            if build["state"] == "finished":
                ended.setdefault(number, build)
        return len(ended) == 400

    one.wait("the end of all builds", all_ended)
    homes = Counter(check(one, ask, one.build(number)) for number, ask in wanted.items())
    print(f"{dict(homes)} of {Counter(build['result'] for build in ended.values())}")
    assert one.builds() == ended
    places = {f"{home}{kind}" for home in ("", "latent-") for kind in agents.KINDS}
    assert places <= set(homes)
    assert {worker["session"]["protocol"] for worker in one.workers() if worker["session"]} >= {"peer", "pb", "bots"}
    assert one.run("health").returncode == 0, one.run("health").stdout
    assert {kind: agent.process.poll() for kind, agent in attached.items()} == dict.fromkeys(attached)
    # They leave in their own ways: Twisted's by the signal itself.
    assert {kind: agent.end() for kind, agent in attached.items()} == {"ours": 0, "buildbot": -15, "woodpecker": 0, "bot": 0}
    one.wait("the agents to be gone", lambda: not any(w["session"] for w in one.workers() if w["name"] in attached))
    one.latent("stop")
    assert list(one.instances()) == []


def check(one: Site, ask: Asked, build: dict[str, Any]) -> str:
    """It came out as asked, on the worker that is returned; "" for one that was cancelled before it got any."""
    assert build["result"] == ("cancelled" if ask.lasting else "failure" if ask.code else "success"), (ask, build)
    if ask.at_once and not build["runs"]:
        assert ask.written == {}
        return ""
    (run,) = build["runs"]
    worker = str(run["worker"])
    home, kind = "latent" if worker.startswith("latent-") else "plain", worker.removeprefix("latent-")
    assert kind == ask.kind if ask.kind else kind != "bot"
    assert home == ask.home or ask.home == ANY
    written = dict.fromkeys(ask.steps, "once\n")
    assert ask.written == written or (ask.at_once and ask.written == {})
    if ask.lasting:
        assert (run["status"], run["error_code"]) == ("interrupted", "cancelled"), build
        assert build["attempts"] == 1 or ask.at_once
        return worker
    status = "failed" if ask.code else "completed"
    assert (build["attempts"], run["status"], run["exit_code"]) == (1, status, ask.code), build
    if ask.payload:
        answer = one.call("GET", f"builds/{build['id']}/answer")
        told = M["ActionResult"].FromString(base64.b64decode(answer["value"]))
        assert answer["type_url"] == RESULT
        assert (told.exit_code, told.stdout_raw.decode().splitlines()) == (ask.code, ask.said(worker))
        return worker
    assert [line["text"] for line in one.lines(build["id"]) if line["stream"] == "stdout"] == ask.said(worker)
    other = {2: "failure", 3: "skipped"} if ask.code else {}
    assert [step["status"] for step in run["steps"]] == [other.get(step, "success") for step in (1, 2, 3, 4)]
    return worker
