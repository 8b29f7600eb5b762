"""The public kit: a controller on a clock that stands still, agents step by step, workers that do as they are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, succeed

from latent.errors import ConfigError, EnrolmentRefused
from latent.model import Attempt, Lease, Outcome, Result
from latent.testing import ControllableLatentWorker, ControllerHarness, Controls, InProcessAgent, InProcessLatentWorker, answer
from tests.controller.kit import obliging, worker


def in_process(tmp_path: Path, count: int) -> ControllerHarness:
    workers = [InProcessLatentWorker(f"w{n}", build_wait_timeout=0) for n in range(count)]
    return ControllerHarness(tmp_path, workers)


def test_in_process_workers_carry_out_builds_by_themselves(tmp_path: Path) -> None:
    """Each build has an instance of its own, and its agent says how it ended."""
    harness = in_process(tmp_path, 3)
    harness.open()
    plugins = [worker for worker in harness.controller.config.workers.values() if isinstance(worker, InProcessLatentWorker)]

    async def work(lease: Lease) -> Outcome:
        return Outcome(result=Result.FAILURE if lease.build_id % 2 else Result.SUCCESS)

    for plugin in plugins:
        plugin.plug(harness.controller, harness.clock.seconds, work)
    answer(harness.controller.start())
    builds = [harness.submit() for _ in range(10)]
    assert [harness.result(build) for build in builds] == [Result.FAILURE, Result.SUCCESS] * 5
    assert sum(harness.attempt(plugin.name) for plugin in plugins) == 10
    harness.stop()


def test_an_agent_that_dies_without_a_word_is_missed(tmp_path: Path) -> None:
    """Nobody renews its lease or closes its session."""
    with ControllerHarness(tmp_path, [w := obliging()]) as harness:
        build = harness.submit()
        token = harness.controller.identity.agent_token(Attempt("w", 1))
        forever: Deferred[Outcome] = Deferred()
        agent = InProcessAgent(harness.controller, token, harness.clock.seconds, lambda lease: forever)
        life = agent.start()
        assert harness.live_run(build).state.tries == 1
        agent.stop()
        assert life.called
        harness.advance(62)
        assert len(w.controls.starts) == 2


def test_an_agents_life_ends_when_it_is_refused(tmp_path: Path) -> None:
    """It fires, however that was."""
    with ControllerHarness(tmp_path, []) as harness:
        agent = InProcessAgent(harness.controller, "nonsense", harness.clock.seconds)
        assert agent.start().called
        agent.stop()


def test_a_controllable_worker_needs_its_controls() -> None:
    """The message says what to write."""
    with pytest.raises(ConfigError, match=r"controls=latent\.testing\.Controls\(\)"):
        ControllableLatentWorker("w")


def test_the_controls_say_what_was_asked(tmp_path: Path) -> None:
    """Starts with their builds and attempts, stops with their haste; and whether two of them overlapped."""
    with ControllerHarness(tmp_path, [w := worker()]) as harness:
        build = harness.submit()
        assert w.controls.starting
        assert w.controls.builds == [build]
        assert w.controls.starts[0].attempt == 1
        w.controls.start_answers()
        assert w.controls.instances == {1}
        harness.stop(fast=True)
        assert [call.fast for call in w.controls.stops] == [True]
        assert not w.controls.instances
        assert not w.controls.overlapped


def test_controls_can_be_shared_with_the_next_controller(tmp_path: Path) -> None:
    """What a provider has is there when the controller is started again, whoever made it."""
    controls = Controls()
    with ControllerHarness(tmp_path, [worker(controls=controls)]) as harness:
        harness.submit()
        controls.start_answers()
        harness.restart()
        assert controls.instances == {1}
        assert harness.worker_state("w") == "SUBSTANTIATING_STARTING"


def test_what_is_not_there_yet_is_an_error_of_the_test() -> None:
    """`answer` does not wait."""
    assert answer(succeed(3)) == 3
    with pytest.raises(AssertionError, match="no answer yet"):
        answer(Deferred())


def test_an_agent_without_work_says_so(tmp_path: Path) -> None:
    """`take` is for leases that are there; `ask` waits."""
    with ControllerHarness(tmp_path, [obliging()]) as harness:
        harness.cancel(harness.submit(), retry=True)
        agent = harness.agent("w").attach()
        agent.work()
        with pytest.raises(AssertionError, match="no lease"):
            agent.take()
        waiting = agent.ask()
        assert not waiting.called


def test_a_delayed_call_that_is_left_behind_fails_the_test(tmp_path: Path) -> None:
    """Whoever forgot to cancel it is named."""
    harness = ControllerHarness(tmp_path, [])
    harness.start()
    call = harness.clock.callLater(100_000, print)
    with pytest.raises(AssertionError, match="left delayed calls behind"):
        harness.stop()
    call.cancel()


def test_a_test_that_fails_is_not_covered_up_by_the_stop(tmp_path: Path) -> None:
    """The first error is the one that is shown."""

    def fails() -> None:
        with ControllerHarness(tmp_path, [worker()]) as harness:
            harness.submit()
            raise EnrolmentRefused("mine")

    with pytest.raises(EnrolmentRefused, match="mine"):
        fails()


def test_a_slow_disk_answers_later(tmp_path: Path) -> None:
    """What a write leads to happens when it is on disk, and not before."""
    with ControllerHarness(tmp_path, [w := obliging()], disk_seconds=0.5) as harness:
        build = harness.submit()
        assert not w.controls.starts, "its claim is on its way"
        harness.advance(0.5)
        assert not w.controls.starts, "and then that its start is intended"
        harness.advance(0.5)
        assert w.controls.builds == [build]
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
