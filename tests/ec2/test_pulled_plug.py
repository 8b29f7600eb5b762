"""`kill -9` of a real controller with instances at the test cloud: at each step of a start and a stop, and at random."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.ec2.site import Ec2Site, MakeSite

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud

START = (
    "before run_instances",
    "RunInstances hangs before",
    "RunInstances hangs after",
    "after run_instances",
    "after describe_instances",
)
STOP = (
    "before terminate_instances",
    "TerminateInstances hangs before",
    "TerminateInstances hangs after",
    "after terminate_instances",
)


def test_start(site: MakeSite, tmp_path: Path) -> None:
    """Killed before RunInstances is sent, while it is on its way and back, and before its answer is on disk: one instance comes
    of it, and the build is run once, by the same attempt."""
    one = site()
    one.latent("start")
    for number, step in enumerate(START, 1):
        build = killed(one, step, number)
        assert (build["result"], build["attempts"]) == ("success", 1), step
        assert one.starts() == {f"ec2-1#{attempt}": 1 for attempt in range(1, number + 1)}, step
    one.latent("stop")
    assert one.up() == []
    assert sorted(path.read_text() for path in tmp_path.glob("ran.*")) == ["once\n"] * len(START)


def test_stop(site: MakeSite, tmp_path: Path) -> None:
    """Killed before TerminateInstances is sent, while it is on its way and back, and before its answer is on disk: nothing is
    left, and what comes next has an instance of its own."""
    one = site()
    one.latent("start")
    for number, step in enumerate(STOP, 1):
        assert killed(one, step, number)["result"] == "success", step
        assert one.starts() == {f"ec2-1#{attempt}": 1 for attempt in range(1, number + 1)}, step
    one.latent("stop")
    assert one.up() == []
    assert sorted(path.read_text() for path in tmp_path.glob("ran.*")) == ["once\n"] * len(STOP)


def killed(site: Ec2Site, step: str, number: int) -> dict[str, object]:
    """A build, during whose attempt the controller is killed at this step and started again; the build when all is over."""
    action, hangs, when = step.partition(" hangs ")
    pid = site.controller_pid()
    site.cloud.forget_calls()
    if hangs:
        site.cloud.hang(action, when=when)
    else:
        site.dies(step)
    asked = site.submit(f"echo once >> {site.directory}/ran.{number}")
    if hangs:
        site.wait(step, lambda: any(call.action == action and not call.status for call in site.cloud.log))
        site.wait(f"{step}: its effect", lambda: when == "before" or has_happened(site.cloud, action))
        site.kill_controller()
        site.cloud.heal()
    else:
        site.wait_dead(pid)
    site.latent("start")
    site.wait_for_all()
    site.no_instance_left()
    return site.build(asked)


def has_happened(cloud: Cloud, action: str) -> bool:
    newest = cloud.instances()[-1:]
    return any(one.is_up if action == "RunInstances" else one.state in ("shutting-down", "terminated") for one in newest)


def test_random(cloud: Cloud, tmp_path: Path) -> None:
    """Killed at random moments while four workers are busy: each build succeeds, each attempt has one instance, none is left."""
    from benchmarks.ec2_kills import faultless, kill_often

    ledger = kill_often(cloud, tmp_path, kills=3, seed=4)
    assert faultless(ledger), ledger
