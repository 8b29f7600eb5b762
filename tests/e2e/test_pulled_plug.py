"""Controllers and agents that are killed without a word, as real processes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.e2e.site import Site

MakeSite = Callable[[str], Site]

EIGHT = 'c["workers"] = [worker.ProcessLatentWorker("local-{n}", count=8, build_wait_timeout=5)]\n'


def test_builds_survive_their_controller(site: MakeSite, tmp_path: Path) -> None:
    """`kill -9` of the controller while eight builds run: their agents go on, each build ends once, no instance is left."""
    one = site(EIGHT)
    one.latent("start")
    go = tmp_path / "go"
    for number in range(8):
        one.submit(f"{_into(tmp_path, number)} while [ ! -e {go} ]; do sleep 0.1; done")
    one.wait("eight builds that run", lambda: sum(b["state"] == "running" for b in one.builds().values()) == 8)
    one.wait("eight builds that wrote", lambda: len(list(tmp_path.glob("ran.*"))) == 8)
    one.kill_controller()
    go.touch()
    one.latent("start")
    builds = one.wait_for_all()
    assert [build["result"] for build in builds.values()] == ["success"] * 8
    assert [build["attempts"] for build in builds.values()] == [1] * 8
    assert sorted(path.read_text() for path in tmp_path.glob("ran.*")) == ["once\n"] * 8
    history = one.latent("history", "local-1")
    assert "Recovered" in history
    one.latent("stop")
    assert list(one.instances()) == []


def test_a_build_survives_its_agent(site: MakeSite, tmp_path: Path) -> None:
    """`kill -9` of an agent: its build is tried again on a new instance and succeeds; the first run says why it ended."""
    one = site(EIGHT)
    one.latent("start")
    go = tmp_path / "go"
    number = one.submit(f"echo once >> {tmp_path}/ran; while [ ! -e {go} ]; do sleep 0.1; done")
    one.wait("the build to run", (tmp_path / "ran").exists)
    for agent in one.agents():
        agent.kill()
    go.touch()
    build = one.wait_for_all()[number]
    assert (build["result"], build["attempts"]) == ("success", 2)
    runs = one.build(number)["runs"]
    assert [run["status"] for run in runs] == ["interrupted", "completed"]
    assert runs[0]["error_msg"]
    one.latent("stop")
    assert list(one.instances()) == []


def test_random_kills_lose_nothing(site: MakeSite, tmp_path: Path) -> None:
    """200 builds while agents and the controller are killed at random: each ends exactly once, and no process is left."""
    chance = random.Random(20)
    nap = 'util.Step(["sh", "-c", util.Interpolate("sleep %(prop:nap)s")])'
    one = site(EIGHT + f'c["builders"] = [util.Builder("nap", [{nap}], max_attempts=100)]\n')
    one.latent("start")
    asked: list[int] = []
    kills = {"agent": 0, "controller": 0}
    for number in range(1, 11):
        naps = [{"nap": chance.choice(["0.1", "1", "2"])} for _ in range(20)]
        asked += [one.call("POST", "builds", builder="nap", properties=nap)["id"] for nap in naps]
        if number % 3 == 0:
            one.kill_controller()
            kills["controller"] += 1
            one.latent("start")
        else:
            chance.choice(one.wait("an agent to kill", one.agents)).kill()
            kills["agent"] += 1
    builds = one.wait_for_all()
    assert sorted(builds) == sorted(asked)
    assert {build["result"] for build in builds.values()} == {"success"}
    for number in asked:
        runs = one.build(number)["runs"]
        assert [run["status"] for run in runs[:-1]] == ["interrupted"] * (len(runs) - 1)
        assert runs[-1]["status"] == "completed"
    print(f"200 builds, {kills} killed, {sum(build['attempts'] for build in builds.values())} runs")
    assert kills == {"agent": 7, "controller": 3}
    one.latent("stop")
    assert list(one.instances()) == []


def _into(directory: Path, number: int) -> str:
    return f"echo once >> {directory}/ran.{number};"
