"""`latent leaks` as an operator has it: with the controller up, down, and gone for good with all that it knew."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.site import Site

MakeSite = Callable[[str], Site]

TWO = 'c["workers"] = [worker.ProcessLatentWorker("local-{n}", count=2, build_wait_timeout=600, orphan_timeout=ORPHAN)]\n'
REAPER = 'c["reaper"] = {"interval": INTERVAL, "min_age": 0.5}\n'


def config(*, orphan: float = 3600, interval: float | None = None) -> str:
    return TWO.replace("ORPHAN", str(orphan)) + REAPER.replace("INTERVAL", repr(interval))


def id_of(site: Site) -> str:
    with closing(sqlite3.connect(site.directory / "state" / "latent.sqlite")) as database:
        return str(database.execute("SELECT value FROM meta WHERE name = 'controller_id'").fetchone()[0])


def both_up(site: Site) -> None:
    site.latent("start")
    for name in ("local-1", "local-2"):
        site.submit("true", labels={"worker": name})
    site.wait_for_all()


def leaks(site: Site, *words: str, ours: str, code: int = 0) -> dict[str, str]:
    """How the instances of one controller stand; other tests' are on this machine, too."""
    done = site.run("leaks", "--json", *words)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}{done.stderr}"
    found = json.loads(done.stdout)["instances"]
    return {f"{one['worker']}#{one['attempt']}": one["standing"] for one in found if one["controller"] == ours}


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process that is marked as an attempt's instance."""
    made: list[subprocess.Popen[bytes]] = []

    def start(controller: str, worker: str, number: int) -> subprocess.Popen[bytes]:
        place = tmp_path / "state" / "instances" / f"{worker}-{number}-{controller[:8]}"
        place.mkdir(parents=True)
        marks = {"LATENT_INSTANCE": f"{controller}/{worker}/{number}", "LATENT_INSTANCE_DIR": str(place)}
        made.append(subprocess.Popen(["sleep", "1000"], env={**os.environ, **marks}, start_new_session=True))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()


def test_gone_for_good(site: MakeSite) -> None:
    """A controller that was killed and whose state was deleted: its instances are seen, and go when it is named."""
    one = site(config())
    both_up(one)
    ours, processes = id_of(one), list(one.instances())
    one.kill_controller()
    shutil.rmtree(one.directory / "state")
    told = one.run("leaks")
    assert told.returncode == 0, told
    assert "there is no state of a controller in" in told.stderr
    assert f"{ours[:8]}: 2" in told.stdout
    refused = one.run("leaks", "--reap", "--controller", "no-such-controller")
    assert refused.returncode == 7
    assert ours in refused.stderr
    assert leaks(one, "--reap", "--controller", ours, ours=ours) == {"local-1#1": "gone", "local-2#1": "gone"}
    psutil.wait_procs(processes, timeout=30)
    assert list(one.instances()) == []
    assert not (one.directory / "state" / "latent.sqlite").exists(), "looking made a controller"


def test_down(site: MakeSite, plant: Callable[..., Any]) -> None:
    """What the next start takes up is expected and left alone; what it would not goes, if asked for. Then it starts as ever."""
    one = site(config())
    both_up(one)
    ours = id_of(one)
    one.kill_controller()
    stray = plant(ours, "local-1", 99)
    up = {"local-1#1": "expected", "local-2#1": "expected"}
    assert leaks(one, ours=ours, code=1) == {**up, "local-1#99": "suspect"}
    assert leaks(one, "--reap", ours=ours) == {**up, "local-1#99": "gone"}
    stray.wait(30)
    one.latent("start")
    assert leaks(one, ours=ours) == up
    assert "local-1#99" not in one.run("health").stdout
    one.latent("stop")
    assert list(one.instances()) == []


def test_up(site: MakeSite, plant: Callable[..., Any]) -> None:
    """What leaks while the controller runs is destroyed by itself; what is protected, or another's, stays."""
    one = site(config(interval=0.5))
    both_up(one)
    ours = id_of(one)
    stray = plant(ours, "no-longer-declared", 3)
    stray.wait(60)
    protected, others = plant(ours, "local-2", 98), plant("5ome0ther" * 4, "local-1", 1)
    (one.directory / "state" / "instances" / f"local-2-98-{ours[:8]}" / "latent.protect").touch()
    scans = one.call("GET", "leaks")["at"]
    one.wait("three more scans", lambda: one.call("GET", "leaks")["at"] > scans + 2)
    up = {"local-1#1": "expected", "local-2#1": "expected", "local-2#98": "protected"}
    assert leaks(one, "--reap", ours=ours) == up
    assert protected.poll() is None
    assert others.poll() is None
    one.latent("stop")


def test_the_dead_mans_switch(site: MakeSite) -> None:
    """The controller does not come back: each agent ends by itself, with all that it started. What is left are directories; a
    controller that comes back nevertheless removes them."""
    one = site(config(orphan=2))
    both_up(one)
    ours = id_of(one)
    one.submit("setsid sleep 1000 & sleep 1000", labels={"worker": "local-1"})
    one.wait("its processes", lambda: any("sleep" in process.name() for process in one.instances()))
    processes = list(one.instances())
    one.kill_controller()
    psutil.wait_procs(processes, timeout=60)
    assert list(one.instances()) == []
    assert leaks(one, ours=ours) == {"local-1#1": "expected", "local-2#1": "expected"}
    one.latent("start")
    one.wait("nothing that is left", lambda: leaks(one, ours=ours) == {})
    assert list((one.directory / "state" / "instances").iterdir()) == []
    one.latent("stop")


def damaged(state: Path) -> None:
    state.mkdir()
    (state / "latent.sqlite").write_bytes(b"garbage" * 1000)


@pytest.mark.parametrize(
    ("damage", "code", "what"),
    [
        (lambda one: (one.directory / "master.cfg").unlink(), 4, "there is no master.cfg"),
        (lambda one: (one.directory / "master.cfg").write_text("c['workers'] = 3"), 3, "is an int, 3, not a list"),
        (lambda one: damaged(one.directory / "state"), 8, "latent.sqlite"),
    ],
    ids=["no master.cfg", "a wrong one", "a damaged database"],
)
def test_wrong_places(site: MakeSite, damage: Callable[[Site], object], code: int, what: str) -> None:
    """Without a controller, what can't be read is named with its remedy."""
    one = site(config())
    damage(one)
    done = one.run("leaks")
    assert done.returncode == code, done
    assert what in done.stderr
    assert "Traceback" not in done.stderr
