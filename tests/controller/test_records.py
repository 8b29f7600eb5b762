"""Dispatches to machines, and the records of runs, in a controller."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from latent.controller.records import DispatchDetails
from latent.errors import ControllerStopping, LatentWorkerFailedToSubstantiate, NotFound
from latent.model import BuildRequest, BuildState, Dispatch, Result, Run, RunStatus, Step
from latent.store import owners
from latent.store.runs import MachineBusy, PrepareOutcome
from latent.store.runs_sql import SqlRunStore
from latent.testing import ControllerHarness
from latent.worker.base import Worker
from tests.controller.kit import controller, made_controls, obliging, worker

CREATED, REUSE = PrepareOutcome.CREATED, PrepareOutcome.REUSE


def request(machine: str = "w", hash: str = "h1") -> BuildRequest:
    about = Dispatch(machine=machine, test_dir="/t", test_dir_hash=hash, batch_id="b")
    return BuildRequest(builder="dispatch", steps=(Step(name="s", command="true"),), dispatch=about)


def dispatch(harness: ControllerHarness, machine: str = "w", hash: str = "h1") -> DispatchDetails:
    answered = Deferred.fromCoroutine(harness.controller.records.dispatch(request(machine, hash)))
    harness.advance(0)
    return harness.answer(answered)


def test_a_dispatch_goes_to_its_machine(tmp_path: Path) -> None:
    """The answer has the run already; its record says what was dispatched, and how it ended."""
    with controller(tmp_path, obliging("v"), obliging()) as harness:
        made = dispatch(harness)
        assert (made.outcome, made.build and made.build.id) == (CREATED, 1)
        assert made.run == Run(id="1", machine="w", test_dir="/t", test_dir_hash="h1", batch_id="b")
        harness.agent("w").attach().work()
        record = harness.answer(harness.controller.records.get("1"))
        assert (record.status, record.test_dir_hash) == (RunStatus.COMPLETED, "h1")
        assert harness.answer(harness.controller.records.find(machine="w")) == [record]


def test_the_same_again_is_the_running_run(tmp_path: Path) -> None:
    """Until it is over; then it is a fresh one."""
    with controller(tmp_path, obliging()) as harness:
        dispatch(harness)
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        again = dispatch(harness)
        assert (again.outcome, again.build and again.build.id, again.run and again.run.status) == (REUSE, 1, RunStatus.RUNNING)
        agent.finish()
        assert dispatch(harness).outcome is CREATED
        agent.work()


def test_a_machine_that_is_busy_is_named_and_nothing_is_stored(tmp_path: Path) -> None:
    """Busy with another dispatch, or with any build."""
    with controller(tmp_path, obliging(), obliging("v")) as harness:
        dispatch(harness)
        harness.submit(workers=["v"])
        for machine, occupant in (("w", "run 1 of build 1"), ("v", "run 2 of build 2")):
            with pytest.raises(MachineBusy, match=f"machine {machine} is busy with {occupant}"):
                dispatch(harness, machine, "h2")
        assert len(harness.answer(harness.controller.builds())) == 2
        harness.agent("w").attach().work()
        harness.agent("v").attach().work()


def test_between_two_runs_it_holds_the_machine(tmp_path: Path) -> None:
    """A run that is interrupted is tried again: meanwhile the same is that dispatch, and another has to wait."""
    declared = worker()
    with controller(tmp_path, declared) as harness:
        dispatch(harness)
        controls = made_controls(declared)
        controls.start_answers(LatentWorkerFailedToSubstantiate("no room"), made=False)
        harness.advance(0)
        again = dispatch(harness)
        assert (again.outcome, again.run, again.build and again.build.state) == (REUSE, None, BuildState.QUEUED)
        with pytest.raises(MachineBusy, match=r"machine w is busy with build 1 \(pending, /t\)"):
            dispatch(harness, hash="h2")
        harness.answer(harness.controller.cancel(1, "enough"))
        if controls.stopping:
            controls.stop_answers()
        harness.advance(0)


def test_a_machine_may_have_several_workers(tmp_path: Path) -> None:
    """Any of them carries it out, and a run of any of them occupies it."""
    ours = [Worker(name, f"secret-{name}", machine_name="box") for name in ("a", "b")]
    with controller(tmp_path, *ours) as harness:
        agents = {name: harness.plain_agent(f"secret-{name}").attach() for name in ("a", "b")}
        made = dispatch(harness, "box")
        assert made.run is not None
        agent = agents[made.run.machine]
        with pytest.raises(MachineBusy, match=f"machine {made.run.machine} is busy with run 1 of build 1"):
            dispatch(harness, "box", "h2")
        agent.work()
        build = harness.submit(workers=["b"])
        with pytest.raises(MachineBusy, match=f"machine b is busy with run 2 of build {build}"):
            dispatch(harness, "box", "h2")
        agents["b"].work()


def test_a_machine_that_is_not_declared_is_refused(tmp_path: Path) -> None:
    with (
        controller(tmp_path, obliging("v")) as harness,
        pytest.raises(NotFound, match=r"no machine or worker is called 'x' \(known: v\)"),
    ):
        dispatch(harness, "x")


def test_a_controller_that_stops_takes_no_dispatch(tmp_path: Path) -> None:
    with controller(tmp_path, obliging()) as harness:
        harness.stop()
        with pytest.raises(ControllerStopping, match="takes no new builds"):
            harness.answer(harness.controller.records.dispatch(request()))


def test_a_dispatch_outlives_the_controller(tmp_path: Path) -> None:
    """After a crash the same is still that dispatch, which waits for its machine's agent."""
    with controller(tmp_path, Worker("w", "secret")) as harness:
        dispatch(harness)
        harness.restart()
        assert dispatch(harness).outcome is REUSE
        with pytest.raises(MachineBusy, match="machine w is busy with build 1"):
            dispatch(harness, hash="h2")
        harness.answer(harness.controller.cancel(1, "enough"))
        harness.advance(0)


def test_a_process_that_is_gone_holds_no_machine(tmp_path: Path) -> None:
    """What another process has put on a machine occupies it; when that process is gone the controller ends its run."""
    with controller(tmp_path, obliging()) as harness:
        others = SqlRunStore(harness.store.engine)
        host, number, start = owners.this_process().split("/")
        others.prepare_atomic("w", "h9", lambda: Run(id="", machine="w"), owner=f"{host}/{number}/{float(start) - 100}")
        with pytest.raises(MachineBusy, match=r"busy with run 1 \(pending\)"):
            dispatch(harness)
        harness.advance(3600.0)
        assert others.get("1").status is RunStatus.INTERRUPTED
        assert dispatch(harness).outcome is CREATED
        harness.agent("w").attach().work()


def test_records_are_taken_in(tmp_path: Path) -> None:
    with controller(tmp_path, obliging()) as harness:
        records = harness.controller.records
        theirs = Run(id="40", machine="w", status=RunStatus.FAILED)
        assert harness.answer(records.adopt([theirs])) == [theirs]
        assert harness.answer(records.adopt([theirs], new_ids=True)) == [evolve(theirs, id="41")]
        build = harness.submit()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert [run.id for run in harness.answer(records.find(after="40"))] == ["41", "42"]
