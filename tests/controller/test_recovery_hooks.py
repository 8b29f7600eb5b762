"""What plugins say of their instances when a controller is started: some raise, some hang, some know of strangers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from latent.config.settings import ReaperSettings
from latent.errors import PluginError
from latent.model import Attempt, Result
from latent.store import attempts
from latent.testing import BareLatentWorker, ControllerHarness, Controls
from latent.worker.base import ListedInstance
from tests.controller.kit import building, controller, keeps_its_promises, obliging, worker

Flush = Callable[..., list[Any]]


def raises() -> None:
    raise RuntimeError("the API is away")


@pytest.mark.parametrize(
    ("answer", "message"),
    [(raises, "the API is away"), (lambda: 3, "answered an int, 3"), (Deferred, "did not answer in 60 s")],
    ids=["raises", "wrong type", "hangs"],
)
@pytest.mark.parametrize("hook", ["resume_instance", "list_instances"])
def test_a_plugin_that_can_not_say_what_exists_holds_up_nobody(
    tmp_path: Path, hook: str, answer: Callable[[], Any], message: str, flush_logged_errors: Flush
) -> None:
    """The other worker serves at once; its own build goes on as its agent is there, and health says what went wrong."""
    with ControllerHarness(tmp_path, [w := worker(), obliging("other")]) as harness:
        build = harness.submit(workers=["w"])
        if hook == "resume_instance":
            w.controls.start_answers()
        else:
            w.controls.instance_appears()  # the start is cut short, so there is no handle yet
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        other, other_agent = building(harness, "other")
        w.controls.instead[hook] = answer
        harness.restart()
        other_agent.come_back()
        other_agent.finish()
        assert harness.result(other) is Result.SUCCESS
        another = harness.submit(workers=["other"])
        other_agent.work()
        assert harness.result(another) is Result.SUCCESS
        agent.come_back(attach=False)
        if answer is Deferred:
            assert harness.status("w").reason == "it is being set up"
            harness.advance(30)
            agent.renew()
            harness.advance(31)
        assert any(message in item.message for item in harness.health("controller"))
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        assert len(harness.runs(build)) == 1
        w.controls.instead.clear()
    flush_logged_errors(RuntimeError, PluginError)


def test_what_happens_to_a_worker_before_it_is_recovered_is_not_lost(tmp_path: Path) -> None:
    """Its agent comes back and finishes while the plugin still looks for the instance."""
    with controller(tmp_path, w := obliging(build_wait_timeout=5)) as harness:
        build, agent = building(harness)
        looking: Deferred[bool] = Deferred()
        w.controls.instead["resume_instance"] = lambda: looking
        harness.restart()
        agent.come_back(attach=False)
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        harness.advance(30)
        assert harness.worker_state("w") == "SUBSTANTIATED"
        looking.callback(True)
        later = harness.submit()
        agent.work()
        assert harness.result(later) is Result.SUCCESS
        harness.advance(5)
        assert len(w.controls.stops) == 1


def test_a_plugin_without_recovery_hooks_keeps_what_is_attached_and_says_what_it_can_not_do(tmp_path: Path) -> None:
    """The agent proves that its instance is there."""
    controls = Controls()
    controls.auto_start = controls.auto_stop = True
    harness = ControllerHarness(tmp_path, [BareLatentWorker("w", controls=controls)])
    with harness:
        build, agent = building(harness)
        harness.restart()
        agent.come_back()
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        (item,) = [item for item in harness.controller.health() if item.subject == "worker w"]
        assert item.ok
        assert "no instance_handle, resume_instance, list_instances, destroy_instance" in item.message
    keeps_its_promises(controls)


def test_workers_of_one_place_are_looked_for_in_one_list(tmp_path: Path) -> None:
    """However many of them have no handle yet, and for strays too; workers at rest ask for nothing more."""

    class Shared(type(worker())):  # type: ignore[misc]
        def list_scope(self) -> str:
            return "one account"

    workers = [Shared(f"w{n}", controls=Controls()) for n in range(4)]
    with ControllerHarness(tmp_path, workers) as harness:
        for one in workers[:3]:
            harness.submit(workers=[one.name])
        harness.restart()
        assert sum(one.arguments[1]["controls"].listings for one in workers) == 2, "one for each start of a controller"
        harness.stop()
        harness.start()
        assert sum(one.arguments[1]["controls"].listings for one in workers) == 3
        for one in workers:
            one.arguments[1]["controls"].auto_start = True


def test_instances_that_nobody_expects_are_destroyed(tmp_path: Path) -> None:
    """Older attempts' and those of workers that are no longer declared; another controller's are not touched."""
    with controller(tmp_path, w := obliging(), reaper=ReaperSettings(min_age=10)) as harness:
        building(harness)[1].finish()
        ours = harness.controller.identity.controller_id
        w.controls.strangers = [
            ListedInstance(Attempt("w", 99), {"attempt": 99}, ours),
            ListedInstance(Attempt("removed", 3), {"attempt": 3}, ours),
            ListedInstance(Attempt("w", 98), {"attempt": 98}, "another controller"),
        ]
        harness.restart()
        assert not w.controls.destroyed, "one scan proves nothing"
        harness.advance(10)
        assert sorted(w.controls.destroyed) == [3, 99]
        assert w.controls.instances == {1}
        w.controls.strangers = []


def test_a_restart_can_be_stopped_while_a_plugin_hangs(tmp_path: Path, flush_logged_errors: Flush) -> None:
    """`latent stop --fast` does not wait for it."""
    with controller(tmp_path, w := obliging()) as harness:
        building(harness)
        w.controls.instead["resume_instance"] = Deferred
        harness.restart()
        before = harness.clock.seconds()
        harness.stop(fast=True)
        assert harness.clock.seconds() == before
        assert len(w.controls.stops) == 1
    flush_logged_errors()


def test_a_restart_can_be_stopped_at_its_last_read(tmp_path: Path) -> None:
    """What a fast stop cuts short has not failed: nothing is logged as an error."""
    harness = ControllerHarness(tmp_path, [obliging()])
    harness.open()
    read = harness.store.read
    asked: Deferred[Any] = Deferred()
    harness.store.read = lambda op: asked if op is attempts.condemned else read(op)  # type: ignore[method-assign]
    harness.answer(harness.controller.start())
    assert not asked.called
    harness.stop(fast=True)
    assert asked.called
