"""Latent machines: hosts that are started for their workers' instances and stopped when nobody builds there (36-45)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latent.core.machines import CANCEL_GRACE
from latent.model import BuildState, Result
from latent.testing import ControllableLatentMachine, ControllerHarness, MachineControls
from latent.worker.base import AbstractWorker
from tests.controller.kit import keeps_its_promises, made_controls, obliging, worker


def machine(name: str = "m", *, controls: MachineControls | None = None, **kwargs: Any) -> ControllableLatentMachine:
    return ControllableLatentMachine(name, controls=controls or MachineControls(), **kwargs)


def ready(name: str = "m", **kwargs: Any) -> ControllableLatentMachine:
    """Starts and stops at once."""
    made = machine(name, **kwargs)
    made.controls.auto_start = made.controls.auto_stop = True
    return made


@contextmanager
def site(
    tmp_path: Path, host: ControllableLatentMachine, *workers: AbstractWorker, **options: Any
) -> Iterator[ControllerHarness]:
    """A controller with one machine. When it goes, the machine is down, and so are its workers' instances."""
    harness = ControllerHarness(tmp_path, workers, machines=[host], **options)
    with harness:
        yield harness
    assert not host.controls.overlapped, "it was started or stopped while another call ran"
    assert not host.controls.up, "it was left up"
    for one in workers:
        keeps_its_promises(made_controls(one))  # type: ignore[arg-type]


def state(harness: ControllerHarness, name: str = "m") -> str:
    shell = harness.controller.machines.get(name)
    assert shell is not None
    return shell.state_name


def counts(host: ControllableLatentMachine) -> tuple[int, int]:
    """Starts and stops."""
    return len(host.controls.starts), len(host.controls.stops)


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.FAILURE], ids=["36", "37"])
def test_the_machine_is_started_for_a_build_and_stopped_after_it(tmp_path: Path, result: Result) -> None:
    """First the machine, then the instance; after the build first the instance is stopped, then the machine. (36, 37)"""
    host = machine()
    with site(tmp_path, host, w := obliging(machine_name="m")) as harness:
        build = harness.submit()
        assert (state(harness), counts(host)) == ("STARTING", (1, 0))
        assert harness.worker_state("w") == "SUBSTANTIATING"
        assert not w.controls.starts
        host.controls.start_answers()
        assert state(harness) == "STARTED"
        w.controls.auto_stop = None
        harness.agent("w").attach().work(result)
        assert harness.result(build) is result
        assert w.controls.stopping
        assert (state(harness), counts(host)) == ("STOPPING", (1, 0))
        w.controls.stop_answers()
        assert counts(host) == (1, 1)
        host.controls.stop_answers()
        assert state(harness) == "STOPPED"


def test_the_machine_is_stopped_exactly_when_its_time_after_the_last_build_is_over(tmp_path: Path) -> None:
    """build_wait_timeout seconds after the last build, and not a second before. (38)"""
    host = ready(build_wait_timeout=30)
    with site(tmp_path, host, obliging(machine_name="m")) as harness:
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        harness.advance(20)
        harness.submit()
        agent.work()
        harness.advance(29)
        assert (state(harness), harness.worker_state("w")) == ("STARTED", "SUBSTANTIATED")
        harness.advance(1)
        assert (state(harness), harness.worker_state("w")) == ("STOPPED", "NOT_SUBSTANTIATED")
        assert counts(host) == (1, 1)


def test_the_machine_is_not_stopped_during_a_build(tmp_path: Path) -> None:
    """However long the build takes. (39)"""
    host = ready(build_wait_timeout=5)
    with site(tmp_path, host, obliging(machine_name="m")) as harness:
        build = harness.submit(timeout=10_000)
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        for _ in range(60):
            harness.advance(15)
            agent.renew()
        assert (state(harness), counts(host)) == ("STARTED", (1, 0))
        agent.finish()
        assert harness.result(build) is Result.SUCCESS


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(False, "answered False"), (RuntimeError("no power"), "no power")],
    ids=["40", "41"],
)
def test_a_failed_start_of_the_machine_gives_its_worker_up(tmp_path: Path, answer: object, reason: str) -> None:
    """The worker does not start, backs off, and the build is queued again; then the machine is tried once more. (40, 41)"""
    host = machine()
    host.controls.auto_stop = True
    with site(tmp_path, host, w := obliging(machine_name="m")) as harness:
        build = harness.submit()
        host.controls.start_answers(answer)
        harness.advance(0)
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"
        assert harness.state(build) is BuildState.QUEUED
        assert reason in harness.why(build)
        assert not w.controls.starts
        assert not w.controls.stops
        assert counts(host) == (1, 1), "a start that failed may have left it up all the same"
        harness.advance(10)
        host.controls.start_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_a_stop_that_fails_leaves_the_machine_stopped_and_is_not_forgotten(tmp_path: Path) -> None:
    """It counts as STOPPED, shows in the health, and its stop is tried again with back-off until it succeeds. (42)"""
    host = ready()
    host.controls.auto_stop = RuntimeError("ssh: no route to host")
    with site(tmp_path, host, obliging(machine_name="m")) as harness:
        build = harness.submit()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert (state(harness), counts(host)) == ("STOPPED", (1, 1))
        (item,) = harness.health("machine m")
        assert "may still be up: stop_machine failed 1 times, again in 10 s: " in item.message
        assert "no route to host" in item.message
        harness.advance(10)
        assert counts(host) == (1, 2)
        harness.advance(19)
        assert counts(host) == (1, 2)
        host.controls.auto_stop = True
        harness.advance(1)
        assert (counts(host), harness.health("machine m")) == ((1, 3), [])
        harness.advance(100_000)
        assert counts(host) == (1, 3)


def test_a_machine_whose_stop_failed_can_be_started(tmp_path: Path) -> None:
    """The next build does not wait for the stop to succeed. (42)"""
    host = ready()
    host.controls.auto_stop = False
    with site(tmp_path, host, obliging(machine_name="m")) as harness:
        harness.submit()
        harness.agent("w").attach().work()
        build = harness.submit()
        host.controls.auto_stop = True
        assert (state(harness), counts(host)) == ("STARTED", (2, 1))
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_two_workers_go_up_and_down_with_their_machine(tmp_path: Path) -> None:
    """The machine stays until the last of them has built, and both instances go with it. (43)"""
    host = ready(build_wait_timeout=0)
    workers = [obliging(name, machine_name="m") for name in ("one", "two")]
    with site(tmp_path, host, *workers) as harness:
        first, second = harness.submit(workers=["one"]), harness.submit(workers=["two"])
        one, two = harness.agent("one").attach(), harness.agent("two").attach()
        one.work()
        assert (harness.result(first), state(harness)) == (Result.SUCCESS, "STARTED")
        assert harness.worker_state("one") == "SUBSTANTIATED"
        two.work()
        assert harness.result(second) is Result.SUCCESS
        assert [harness.worker_state(name) for name in ("one", "two")] == ["NOT_SUBSTANTIATED"] * 2
        assert (state(harness), counts(host)) == ("STOPPED", (1, 1))


def test_two_builds_at_once_share_one_start(tmp_path: Path) -> None:
    """Both workers wait for the same start. (44)"""
    host = machine(build_wait_timeout=60)
    workers = [obliging(name, machine_name="m") for name in ("one", "two")]
    with site(tmp_path, host, *workers) as harness:
        builds = [harness.submit(workers=["one"]), harness.submit(workers=["two"])]
        assert counts(host) == (1, 0)
        assert harness.why(builds[1]).endswith("(two is SUBSTANTIATING, its machine m is STARTING)")
        host.controls.start_answers()
        for name in ("one", "two"):
            harness.agent(name).attach().work()
        assert [harness.result(build) for build in builds] == [Result.SUCCESS] * 2
        assert counts(host) == (1, 0)


def test_one_failed_start_gives_both_workers_up(tmp_path: Path) -> None:
    """Both builds are queued again, and neither worker has started anything. (45)"""
    host = machine()
    workers = [worker(name, machine_name="m") for name in ("one", "two")]
    with site(tmp_path, host, *workers) as harness:
        builds = [harness.submit(workers=["one"]), harness.submit(workers=["two"])]
        host.controls.start_answers(False)
        harness.advance(0)
        assert [harness.state(build) for build in builds] == [BuildState.QUEUED] * 2
        assert [harness.worker_state(name) for name in ("one", "two")] == ["NOT_SUBSTANTIATED"] * 2
        assert not any(made_controls(one).starts for one in workers)


# --- what nobody there thought of -----------------------------------------------------------------------------------------------


def test_a_machine_that_is_on_its_way_down_is_kept_if_a_build_comes(tmp_path: Path) -> None:
    """While an instance is still on it, it is up: a build for it does not wait for a stop and a start."""
    host = ready()
    workers = [obliging(name, machine_name="m") for name in ("one", "two")]
    with site(tmp_path, host, *workers) as harness:
        made_controls(workers[0]).auto_stop = None
        harness.submit(workers=["one"])
        harness.agent("one").attach().work()
        assert state(harness) == "STOPPING"
        build = harness.submit(workers=["two"])
        assert (state(harness), counts(host)) == ("STARTED", (1, 0))
        made_controls(workers[0]).stop_answers()
        harness.agent("two").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert (state(harness), counts(host)) == ("STOPPED", (1, 1))


def test_a_build_that_comes_during_the_stop_gets_the_next_start(tmp_path: Path) -> None:
    """Start and stop do not overlap."""
    host = machine()
    with site(tmp_path, host, obliging(machine_name="m")) as harness:
        harness.submit()
        host.controls.start_answers()
        harness.agent("w").attach().work()
        assert host.controls.stopping
        build = harness.submit()
        assert counts(host) == (1, 1)
        host.controls.stop_answers()
        assert counts(host) == (2, 1)
        host.controls.start_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


@pytest.mark.parametrize("deaf", [False, True])
def test_a_start_that_hangs_keeps_nobody_waiting(tmp_path: Path, deaf: bool) -> None:
    """After missing_timeout it is cancelled and its builds are queued again; the machine is stopped when it has ended, or not."""
    host = machine(missing_timeout=60)
    host.controls.deaf = deaf
    with site(tmp_path, host, worker(machine_name="m")) as harness:
        build = harness.submit()
        harness.advance(60)
        assert harness.state(build) is BuildState.QUEUED
        assert "did not start in 60 s" in harness.why(build)
        if deaf:
            (item,) = harness.health("machine m")
            assert "its start_machine took too long and was cancelled, but has not ended" in item.message
            harness.cancel(build)
            harness.advance(CANCEL_GRACE)
        else:
            harness.cancel(build)
        assert host.controls.stopping
        assert host.controls.overlapped is deaf, "only what was given up may still be running"
        host.controls.deaf = host.controls.overlapped = False
        host.controls.auto_stop = True
        host.controls.stop_answers()
        assert state(harness) == "STOPPED"
        if deaf:
            host.controls.start_answers()  # late: what had been given up is up after all
            assert counts(host) == (1, 2)


def test_a_build_that_is_cancelled_lets_the_machine_go(tmp_path: Path) -> None:
    """The start is waited for, and then it is stopped: nobody needs it."""
    host = machine()
    with site(tmp_path, host, worker(machine_name="m")) as harness:
        harness.cancel(harness.submit())
        assert (state(harness), counts(host)) == ("STARTING", (1, 0))
        host.controls.start_answers()
        assert counts(host) == (1, 1)


def test_below_0_the_machine_is_stopped_at_the_shutdown_only(tmp_path: Path) -> None:
    """build_wait_timeout=-1."""
    host = ready(build_wait_timeout=-1)
    with site(tmp_path, host, obliging(machine_name="m", build_wait_timeout=5)) as harness:
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(100_000)
        assert (state(harness), harness.worker_state("w")) == ("STARTED", "NOT_SUBSTANTIATED")
    assert counts(host) == (1, 1)


def test_a_shutdown_stops_the_machine_after_its_workers(tmp_path: Path) -> None:
    """Also while the machine is being started."""
    host = machine()
    with site(tmp_path, host, worker(machine_name="m")) as harness:
        harness.submit()
        assert host.controls.starting
        host.controls.auto_stop = True
    assert counts(host) == (1, 1)


@pytest.mark.parametrize("when", ["starting", "started", "building", "stopping"])
def test_the_state_survives_a_crash(tmp_path: Path, when: str) -> None:
    """The next controller goes on where this one was killed: what it called is called again, what was up is not started again."""
    host = machine(build_wait_timeout=30)
    with site(tmp_path, host, obliging(machine_name="m")) as harness:
        build = harness.submit()
        if when != "starting":
            host.controls.start_answers()
            agent = harness.agent("w").attach()
            agent.take()
            agent.begin()
        if when in ("started", "stopping"):
            agent.finish()
            harness.advance(30 if when == "stopping" else 10)
        harness.restart()
        if when == "starting":
            assert counts(host) == (2, 0)
            assert harness.worker_state("w") == "SUBSTANTIATING"
            host.controls.start_answers()
            harness.agent("w").attach().work()
        elif when == "building":
            assert (state(harness), counts(host)) == ("STARTED", (1, 0))
            agent.come_back()
            agent.finish()
        elif when == "started":
            agent.come_back()
            harness.advance(19)
            assert (state(harness), counts(host)) == ("STARTED", (1, 0))
            harness.advance(1)
            assert counts(host) == (1, 1)
        else:
            assert counts(host) == (1, 2), "nobody knows whether the stop that ran took effect"
        assert harness.result(build) is Result.SUCCESS


def test_a_start_that_nobody_waits_for_after_a_crash_is_undone(tmp_path: Path) -> None:
    """The machine may be up, and nobody wants it."""
    host = machine()
    host.controls.auto_stop = True
    with site(tmp_path, host, worker(machine_name="m")) as harness:
        harness.cancel(harness.submit())
        host.controls.up = True
        harness.restart()
        assert (state(harness), counts(host), host.controls.up) == ("STOPPED", (1, 1), False)


def test_the_journal_tells_what_happened_to_the_machine(tmp_path: Path) -> None:
    """`latent history m`."""
    host = ready()
    with site(tmp_path, host, obliging(machine_name="m")) as harness:
        harness.submit()
        harness.agent("w").attach().work()
        assert harness.events("m")[:2] == ["Wanted", "StartAnswered"]
        entries = harness.answer(harness.controller.history("m", 100))
        assert [entry.state_name for entry in entries][:2] == ["STARTING", "STARTED"]
        assert entries[-1].state_name == "STOPPED"
        assert entries[0].detail == {"worker": "w#1"}


def test_a_worker_whose_machine_is_not_declared_says_so(tmp_path: Path) -> None:
    """`latent checkconfig` finds it before; whoever makes a controller without it is told by the build."""
    with ControllerHarness(tmp_path, [worker(machine_name="elsewhere")]) as harness:
        build = harness.submit()
        harness.advance(0)
        assert "its machine 'elsewhere' is not declared in c['machines']" in harness.why(build)


# --- a new configuration ------------------------------------------------------------------------------------------------------


def test_a_machine_that_is_no_longer_declared_is_stopped(tmp_path: Path) -> None:
    """Once the instance that was started on it has gone; a new one is used from then on."""
    old, new = ready("old", build_wait_timeout=-1), ready("new")
    with site(tmp_path, old, w := obliging(machine_name="old")) as harness:
        first = harness.submit()
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        moved = obliging(machine_name="new", controls=w.controls)
        told = harness.reconfigure([moved], machines=[new])
        assert "machine old: removed; it is stopped when no instance is on it" in told
        assert "machine new: added" in told
        assert counts(old) == (1, 0)
        agent.finish()
        assert (harness.result(first), counts(old)) == (Result.SUCCESS, (1, 1))
        assert harness.controller.machines.get("old") is None
        second = harness.submit()
        harness.agent("w").attach().work()
        assert (harness.result(second), counts(new)) == (Result.SUCCESS, (1, 1))


def test_a_changed_time_counts_at_once(tmp_path: Path) -> None:
    """The machine is not touched otherwise."""
    host = ready(build_wait_timeout=-1)
    with site(tmp_path, host, w := obliging(machine_name="m")) as harness:
        harness.submit()
        harness.agent("w").attach().work()
        again = obliging(machine_name="m", controls=w.controls)
        told = harness.reconfigure([again], machines=[ready(controls=host.controls, build_wait_timeout=10)])
        assert told == ["machine m: changed"]
        harness.advance(9)
        assert state(harness) == "STARTED"
        harness.advance(1)
        assert (state(harness), counts(host)) == ("STOPPED", (1, 1))


def test_a_machine_that_goes_and_comes_back_is_used_again(tmp_path: Path) -> None:
    """It was still up with an instance on it, so it just stays."""
    host = ready(build_wait_timeout=-1)
    with site(tmp_path, host, w := obliging(machine_name="m")) as harness:
        harness.submit()
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        bare = obliging(controls=w.controls)
        harness.reconfigure([bare], machines=[])
        assert state(harness) == "STOPPING"
        back = obliging(machine_name="m", controls=w.controls)
        harness.reconfigure([back], machines=[ready(controls=host.controls, build_wait_timeout=-1)])
        assert (state(harness), counts(host)) == ("STARTED", (1, 0))
        agent.finish()


def test_one_that_was_up_when_the_controller_died_and_is_declared_no_more_is_reported(tmp_path: Path) -> None:
    """Nobody knows how to stop it."""
    host = ready(build_wait_timeout=-1)
    with ControllerHarness(tmp_path, [w := obliging(machine_name="m")], machines=[host]) as harness:
        harness.submit()
        harness.agent("w").attach().work()
        harness.restart([obliging(controls=made_controls(w))], machines=[])
        assert any("machine m is no longer declared as it was, but may be up" in item.message for item in harness.health())
