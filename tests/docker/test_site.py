"""A controller as a user has it, with Docker workers on a real daemon and latent-agent in their containers."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import AGENT, BASE, PYTHON, VOLUMES, Engine, require_engine, running
from tests.e2e.site import Site

MakeSite = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[MakeSite]:
    """Makes a site whose workers are declared with these keywords; agents see the test's directory."""
    made: list[Site] = []

    def make(engine: Engine, *, name: str = "docker-{n}", count: int = 1, more: str = "", **keywords: Any) -> Site:
        given: dict[str, Any] = {
            "docker_host": engine.url,
            "image": BASE,
            "command": AGENT,
            "volumes": [*VOLUMES, f"{tmp_path}:{tmp_path}"],
            "hostconfig": {"network_mode": "host"},
            "stop_grace": 5,
            **keywords,
        }
        declared = ", ".join(f"{keyword}={value!r}" for keyword, value in given.items())
        made.append(Site(tmp_path, f"c['workers'] = [worker.DockerLatentWorker({name!r}, count={count}, {declared})]\n{more}"))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    """A daemon that the test may kill."""
    require_engine()
    with running() as engine:
        engine.load_base()
        yield engine


TAC = """
import os
from twisted.application import service
from buildbot_worker.bot import Worker

application = service.Application("buildbot-worker")
told = os.environ
where = told["BUILDMASTER"], int(told["BUILDMASTER_PORT"]), told["WORKERNAME"], told["WORKERPASS"]
Worker(*where, "/tmp", keepalive=600, protocol=told["BUILDMASTER_PROTOCOL"]).setServiceParent(application)
"""


def add_stock(site: Site, directory: Path, count: int, *protocols: str) -> None:
    """Declare workers like those of the site, with `buildbot-worker` in their containers: "pb-N", "msgpack_experimental_v7-N"."""
    (directory / "buildbot.tac").write_text(TAC)
    twistd = "from twisted.scripts.twistd import run; run()"
    stock = [PYTHON, "-c", twistd, "--nodaemon", "--pidfile=", f"--python={directory}/buildbot.tac"]
    config = (site.directory / "master.cfg").read_text()
    declared = next(line for line in config.splitlines() if line.startswith("c['workers'] ="))
    for protocol in protocols:
        more = declared.replace("c['workers'] =", "c['workers'] +=").replace("docker-{n}", f"{protocol}-{{n}}")
        more = re.sub(r"count=\d+", f"count={count}, master_protocol={protocol!r}", more).replace(repr(AGENT), repr(stock))
        config += f"\n{more}\nc.setdefault('protocols', {{}})[{protocol!r}] = {{'port': 0}}\n"
    (site.directory / "master.cfg").write_text(config)


def history(site: Site, worker: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.call("GET", f"workers/{worker}/history?limit=1000")["entries"]
    return found


def test_two_images(engine: Engine, site: MakeSite) -> None:
    """Builds choose between two images by property; none runs in the other's, though instances are kept."""
    client = engine.client()
    dockerfile = 'util.Interpolate("FROM base:1\\nRUN echo %(prop:flavour)s > /flavour")'
    builder = 'c["builders"] = [util.Builder("tell", ["cat /flavour"], max_attempts=20)]'
    one = site(engine, count=3, more=builder, build_wait_timeout=60)
    config = (one.directory / "master.cfg").read_text()
    config = config.replace(f"image={BASE!r}", f"dockerfile={dockerfile}")
    (one.directory / "master.cfg").write_text(config)
    one.latent("start")
    flavours = ["sweet", "sour", "sour", "sweet", "sweet", "sour", "sweet", "sour"]
    asked = [one.call("POST", "builds", builder="tell", properties={"flavour": flavour})["id"] for flavour in flavours]
    one.wait_for_all()
    for number, flavour in zip(asked, flavours, strict=True):
        log = one.latent("logs", str(number))
        assert f"\n{flavour}\n" in log, log
    assert any("building image latent-image:" in one.latent("logs", str(number)) for number in asked)
    one.latent("stop")
    assert engine.names() == []
    for image in client.images():
        if BASE not in (image["RepoTags"] or ()):
            client.remove_image(image["Id"], force=True)


def test_exits_before_attaching(engine: Engine, site: MakeSite) -> None:
    """An instance that exits before attaching fails its build's start long before the next check, with its last lines."""
    command = ["sh", "-c", "sleep 1; echo no agent in this image; exit 9"]
    one = site(engine, command=command, check_instance_interval=100_000, more="c['limits'] = {}")
    one.latent("start")
    number = one.submit("true")
    run = one.wait("a failed run", lambda: [r for r in one.build(number)["runs"] if r["error_msg"]])[0]
    assert "exited with code 9" in run["error_msg"]
    assert "no agent in this image" in run["error_msg"]
    print(f"from start to failure: {run['ended_at'] - history(one, 'docker-1')[0]['at']:.2f} s, of which it ran for 1 s")
    one.call("POST", f"builds/{number}/cancel", reason="seen enough")
    one.wait_for_all()
    one.latent("stop")
    assert engine.names() == []


def test_never_attaches(engine: Engine, site: MakeSite) -> None:
    """An instance whose agent never comes is stopped after missing_timeout, and the run says so."""
    one = site(engine, command=["sleep", "1000"], missing_timeout=2, stop_grace=0)
    one.latent("start")
    number = one.submit("true")
    run = one.wait("a failed run", lambda: [r for r in one.build(number)["runs"] if r["error_msg"]])[0]
    assert "2 s" in run["error_msg"]
    one.call("POST", f"builds/{number}/cancel", reason="seen enough")
    one.wait_for_all()
    one.latent("stop")
    assert engine.names() == []


def test_controller_is_killed(engine: Engine, site: MakeSite, tmp_path: Path) -> None:
    """`kill -9` of the controller: containers are adopted, running builds go on, an idle container serves the next build.

    `buildbot-worker` ends its build when the connection breaks: that one is tried again, in the same container.
    """
    one = site(engine, count=4, build_wait_timeout=300)
    add_stock(one, tmp_path, 1, "pb")
    one.latent("start")
    go = tmp_path / "go"
    asked = [
        one.submit(f"echo once >> {tmp_path}/ran.{n}; while [ ! -e {go} ]; do sleep 0.1; done", labels={"worker": name})
        for n, name in enumerate(("docker-1", "docker-2", "docker-3", "pb-1"))
    ]
    idle = one.submit("true", labels={"worker": "docker-4"})
    one.wait("four builds that run", lambda: len(list(tmp_path.glob("ran.*"))) == 4)
    one.wait("the idle one", lambda: one.builds()[idle]["state"] == "finished")
    before = engine.names()
    assert len(before) == 5
    one.kill_controller()
    go.touch()
    one.latent("start")
    builds = one.wait_for_all()
    assert [(builds[n]["result"], builds[n]["attempts"]) for n in asked] == [*[("success", 1)] * 3, ("success", 2)]
    assert [run["status"] for run in one.build(asked[3])["runs"]] == ["interrupted", "completed"]
    again = one.submit("true", labels={"worker": "docker-4"})
    one.wait_for_all()
    assert one.build(again)["runs"][0]["attempt"] == one.build(idle)["runs"][0]["attempt"]
    assert engine.names() == before
    one.latent("stop")
    assert engine.names() == []


def test_strays(engine: Engine, site: MakeSite) -> None:
    """What is ours and nobody expects is destroyed after a restart; what is another's, or nobody's, is left alone."""
    one = site(engine)
    one.latent("start")
    one.submit("true")
    one.wait_for_all()
    one.wait("the container to go", lambda: not engine.names())
    controller_id = controller_of(one)
    one.kill_controller()
    client = engine.client()

    def leave(name: str, **labels: str) -> None:
        client.start(client.create_container(BASE, ["sleep", "1000"], name=name, labels=labels)["Id"])

    ours = {"latent.controller": controller_id, "latent.worker": "docker-1"}
    leave("stray", **{**ours, "latent.attempt": "7"})
    leave("undeclared", **{**ours, "latent.worker": "gone", "latent.attempt": "1"})
    leave("foreign", **{**ours, "latent.controller": "f" * 32, "latent.attempt": "7"})
    leave("anybodys")
    leave("latent-docker-1-8")
    client.create_network("stray-net", labels={**ours, "latent.attempt": "9"})
    client.create_volume("stray-volume", labels={**ours, "latent.attempt": "10"})
    client.create_volume("anybodys-volume")
    one.latent("start")
    left = ["anybodys", "foreign", "latent-docker-1-8"]
    one.wait("the strays to go", lambda: engine.names() == left and not engine.networks())
    one.wait("the volume to go", lambda: engine.volumes() == ["anybodys-volume"])
    one.latent("stop")
    assert engine.names() == left
    for name in left:
        client.remove_container(name, force=True)
    client.remove_volume("anybodys-volume")


def controller_of(site: Site) -> str:
    with closing(sqlite3.connect(site.directory / "state" / "latent.sqlite")) as connection:
        values = [value for row in connection.execute("SELECT * FROM meta") for value in row]
    return next(value for value in values if isinstance(value, str) and len(value) == 32)


def test_daemon_is_killed(own_engine: Engine, site: MakeSite, tmp_path: Path) -> None:
    """`kill -9` of dockerd with builds running: they are tried again once it is back, and nothing is left."""
    one = site(own_engine, count=3)
    one.latent("start")
    go = tmp_path / "go"
    asked = [one.submit(f"echo try >> {tmp_path}/ran.{n}; while [ ! -e {go} ]; do sleep 0.1; done") for n in range(3)]
    one.wait("three builds that run", lambda: len(list(tmp_path.glob("ran.*"))) == 3)
    own_engine.kill()
    late = one.submit("echo late")
    one.wait("the daemon to be missed", lambda: "no Docker daemon answers" in json.dumps(one.build(late)))
    own_engine.start()
    go.touch()
    builds = one.wait_for_all()
    assert {builds[number]["result"] for number in (*asked, late)} == {"success"}
    for number in asked:
        runs = one.build(number)["runs"]
        assert [run["status"] for run in runs[:-1]] == ["interrupted"] * (len(runs) - 1)
    one.wait("all containers to go", lambda: not own_engine.names())
    one.latent("stop")
    assert own_engine.names() == []


def test_fifty_builds_with_three_agents(engine: Engine, site: MakeSite, tmp_path: Path) -> None:
    """50 builds over ten workers, two images chosen by property, agents over PB, msgpack and the peer protocol: all are right."""
    once = f"echo once >> {tmp_path}/ran.%(prop:n)s"
    steps = f'util.Interpolate({once!r}), "cat /flavour", "echo to stderr >&2", util.Interpolate("echo %(prop:n)s")'
    one = site(engine, count=4, more=f'c["builders"] = [util.Builder("tell", [{steps}])]')
    config = (one.directory / "master.cfg").read_text()
    config = config.replace(
        f"image={BASE!r}", 'dockerfile=util.Interpolate("FROM base:1\\nRUN echo %(prop:flavour)s > /flavour")'
    )
    (one.directory / "master.cfg").write_text(config + "\n")
    add_stock(one, tmp_path, 3, "pb", "msgpack_experimental_v7")
    one.latent("start")
    flavours = ["sweet" if n % 3 else "sour" for n in range(50)]
    asked = [
        one.call("POST", "builds", builder="tell", properties={"flavour": flavour, "n": n})["id"]
        for n, flavour in enumerate(flavours)
    ]
    builds = one.wait_for_all()
    assert [builds[number]["result"] for number in asked] == ["success"] * 50
    assert [path.read_text() for path in tmp_path.glob("ran.*")] == ["once\n"] * 50
    ran = set()
    for n, (number, flavour) in enumerate(zip(asked, flavours, strict=True)):
        lines = one.lines(number)
        told = [line["text"] for line in lines if line["text"] in ("sweet", "sour", "to stderr", str(n))]
        assert told == [flavour, "to stderr", str(n)], lines
        ran.add(one.build(number)["runs"][-1]["worker"].rpartition("-")[0])
    assert ran == {"docker", "pb", "msgpack_experimental_v7"}
    one.latent("stop")
    assert (engine.names(), engine.volumes(), engine.networks()) == ([], [], [])
    client = engine.client()
    for image in client.images():
        if BASE not in (image["RepoTags"] or ()):
            client.remove_image(image["Id"], force=True)
