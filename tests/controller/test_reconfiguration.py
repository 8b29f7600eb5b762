"""A new configuration for a running controller: what did not change is not touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from latent.config.settings import Limits
from latent.errors import EnrolmentRefused, PluginError
from latent.model import BuildState, Result
from latent.testing import BareLatentWorker, ControllableLatentWorker, Controls
from latent.worker.base import Worker
from tests.controller.kit import building, controller, keeps_its_promises, obliging, worker

Flush = Callable[..., list[Any]]


def again(one: ControllableLatentWorker, **changes: Any) -> ControllableLatentWorker:
    """The same declaration, read anew from master.cfg."""
    args, kwargs = one.arguments
    return type(one)(*args, **{**kwargs, **changes})


def test_the_same_configuration_changes_nothing(tmp_path: Path) -> None:
    """Not even the plugin's object; a build that runs goes on."""
    with controller(tmp_path, w := obliging(build_wait_timeout=7)) as harness:
        build, agent = building(harness)
        calls: list[str] = []
        w.controls.instead["reconfigService"] = lambda: calls.append("called")
        assert harness.reconfigure([again(w)]) == ["nothing changed"]
        assert harness.post("w").plugin is w
        assert not calls
        agent.finish()
        assert harness.result(build) is Result.SUCCESS


def test_a_worker_that_is_added_serves(tmp_path: Path) -> None:
    """The build that waited for it gets it at once."""
    with controller(tmp_path, a := obliging("a")) as harness:
        build = harness.submit(workers=["b"])
        b = obliging("b")
        assert harness.reconfigure([again(a), b]) == ["worker b: added"]
        harness.agent("b").attach().work()
        assert harness.result(build) is Result.SUCCESS
    keeps_its_promises(b.controls)


def test_a_worker_that_is_removed_ends_its_build_first(tmp_path: Path) -> None:
    """It gets no other, its instance is stopped, and then it is gone."""
    with controller(tmp_path, w := obliging()) as harness:
        build, agent = building(harness)
        waiting = harness.submit()
        assert harness.reconfigure([]) == ["worker w: removed, after its last build (1 running)"]
        assert "no longer declared" in harness.why(waiting)
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        harness.advance(0)
        assert "w" not in harness.controller.roster
        assert len(w.controls.stops) == 1
        assert harness.state(waiting) is BuildState.QUEUED


@pytest.mark.parametrize("timeout", [600, -1])
def test_a_worker_that_is_removed_during_a_stop_with_a_build_waiting_goes_after_that_build(tmp_path: Path, timeout: int) -> None:
    """The build has its instance, and the instance does not stay for another."""
    with controller(tmp_path, w := obliging(build_wait_timeout=timeout)) as harness:
        _, agent = building(harness)
        agent.finish()
        w.controls.auto_stop = None
        agent.leave()
        harness.submit()
        assert harness.worker_state("w") == "INSUBSTANTIATING_SUBSTANTIATING"
        harness.reconfigure([])
        w.controls.auto_stop = True
        w.controls.stop_answers()
        harness.agent("w").attach().work()
        harness.advance(0)
        assert "w" not in harness.controller.roster


def test_an_idle_worker_that_is_removed_goes_at_once(tmp_path: Path) -> None:
    """Its instance is stopped; its number of attempts is remembered for when it is declared again."""
    with controller(tmp_path, w := obliging()) as harness:
        building(harness)[1].finish()
        harness.reconfigure([])
        assert "w" not in harness.controller.roster
        harness.reconfigure([again(w)])
        building(harness)[1].finish()
        assert [call.attempt for call in w.controls.starts] == [1, 2]


def test_a_worker_that_is_removed_and_declared_again_meanwhile_comes_back_after_its_build(tmp_path: Path) -> None:
    """The one that was removed goes first; the next starts where it ended."""
    with controller(tmp_path, w := obliging()) as harness:
        _, agent = building(harness)
        harness.reconfigure([])
        assert "once the one of that name before it has gone" in harness.reconfigure([again(w)])[0]
        waiting = harness.submit()
        agent.finish()
        harness.agent("w").attach().work()
        assert harness.result(waiting) is Result.SUCCESS
        assert [call.attempt for call in w.controls.starts] == [1, 2]


def test_a_setting_that_no_instance_depends_on_leaves_it_up(tmp_path: Path) -> None:
    """And holds at once: the idle instance goes after the new time."""
    with controller(tmp_path, w := obliging(build_wait_timeout=-1)) as harness:
        building(harness)[1].finish()
        assert harness.reconfigure([again(w, build_wait_timeout=5)]) == ["worker w: changed"]
        assert not w.controls.stops
        harness.advance(5)
        assert len(w.controls.stops) == 1


def test_an_instance_made_from_the_old_declaration_goes_after_its_build(tmp_path: Path) -> None:
    """The next build gets a new one."""
    with controller(tmp_path, w := obliging()) as harness:
        build, agent = building(harness)
        done = harness.reconfigure([again(w, machine_name=None, password="another")])
        assert done == ["worker w: changed; its instance goes after its last build"]
        waiting = harness.submit()
        assert "its declaration changed" in harness.why(waiting)
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        assert w.controls.builds == [build, waiting]
        assert harness.post("w").plugin is w


def test_a_worker_of_another_class_replaces_the_one_before_after_its_build(tmp_path: Path) -> None:
    """Numbers of attempts go on; what the first one made is its own to destroy."""
    with controller(tmp_path, w := obliging()) as harness:
        _, agent = building(harness)
        controls = Controls()
        controls.auto_start = controls.auto_stop = True
        (line,) = harness.reconfigure([BareLatentWorker("w", controls=controls)])
        assert "its class is another, after its last build (1 running)" in line
        waiting = harness.submit()
        agent.finish()
        assert isinstance(harness.post("w").plugin, BareLatentWorker)
        assert [call.attempt for call in controls.starts] == [2]
        harness.agent("w").attach().work()
        assert harness.result(waiting) is Result.SUCCESS
        assert len(w.controls.stops) == 1
    keeps_its_promises(controls)


def test_what_is_to_replace_a_worker_may_be_changed_or_removed_before_it_does(tmp_path: Path) -> None:
    """The last configuration is the one that counts."""
    with controller(tmp_path, w := obliging()) as harness:
        _, agent = building(harness)
        controls = Controls()
        controls.auto_start = controls.auto_stop = True
        harness.reconfigure([first := BareLatentWorker("w", controls=controls)])
        harness.reconfigure([BareLatentWorker("w", controls=controls, build_wait_timeout=3)])
        assert w.build_wait_timeout != 3, "the one that goes is not what was changed"
        agent.finish()
        assert harness.post("w").plugin is not first
        assert harness.post("w").state.policy.build_wait_timeout == 3
    with controller(tmp_path, w := obliging()) as harness:
        _, agent = building(harness)
        harness.reconfigure([BareLatentWorker("w", controls=Controls())])
        harness.reconfigure([])
        agent.finish()
        assert "w" not in harness.controller.roster


def test_what_did_not_change_keeps_its_build_and_its_instance(tmp_path: Path) -> None:
    """One is added, one removed, one changed: the fourth notices nothing."""
    same, gone, changed = obliging("same"), obliging("gone"), obliging("changed")
    with controller(tmp_path, same, gone, changed) as harness:
        build, agent = building(harness, "same")
        before = harness.events("same")
        done = harness.reconfigure([again(same), again(changed, max_builds=2), obliging("new")])
        assert sorted(done) == ["worker changed: changed", "worker gone: removed", "worker new: added"]
        assert harness.events("same") == before
        agent.finish()
        assert harness.result(build) is Result.SUCCESS


def test_limits_hold_at_once(tmp_path: Path) -> None:
    """What waited for a limit goes on when it is raised."""
    a, b = obliging("a"), obliging("b")
    with controller(tmp_path, a, b, limits=Limits(max_instances=1)) as harness:
        harness.submit()
        waiting = harness.submit()
        assert "max_instances=1" in harness.why(waiting)
        assert harness.reconfigure([again(a), again(b)], limits=Limits()) == ["limits.max_instances: 1 -> None"]
        assert harness.state(waiting) is BuildState.STARTING


def test_the_old_password_of_a_plain_worker_is_worth_nothing(tmp_path: Path) -> None:
    """From the change on; the agent that is attached stays."""
    with controller(tmp_path, Worker("w", "old")) as harness:
        agent = harness.plain_agent("old").attach()
        harness.reconfigure([Worker("w", "new")])
        build = harness.submit()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        with pytest.raises(EnrolmentRefused):
            harness.plain_agent("old").enrol()
        harness.plain_agent("new").attach()


def test_a_plain_worker_that_is_removed_ends_its_build_and_is_let_go(tmp_path: Path) -> None:
    """Its session is closed then."""
    with controller(tmp_path, Worker("w", "secret")) as harness:
        build = harness.submit()
        agent = harness.plain_agent("secret").attach()
        agent.take()
        agent.begin()
        harness.reconfigure([])
        assert not agent.closed
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        assert "no longer declared" in agent.closed
        assert "w" not in harness.controller.roster


def refuses() -> None:
    raise ValueError("there is no such region")


@pytest.mark.parametrize(
    ("instead", "message"), [(refuses, "there is no such region"), (Deferred, "did not answer in 60 s")], ids=["raises", "hangs"]
)
def test_a_worker_that_can_not_be_changed_gets_no_builds_until_it_can(
    tmp_path: Path, instead: Callable[[], Any], message: str, flush_logged_errors: Flush
) -> None:
    """Health says why; the next `latent reconfig` tries again, though nothing else has changed by then."""
    with controller(tmp_path, w := obliging(), other := obliging("other")) as harness:
        w.controls.instead["reconfigService"] = instead
        changing = Deferred.fromCoroutine(
            harness.controller.reconfigure(harness.config([again(w, max_builds=3), again(other, max_builds=2)]))
        )
        harness.advance(60)
        assert changing.called
        assert message in harness.health("worker w")[0].message
        build = harness.submit(workers=["w"])
        assert message in harness.why(build)
        assert harness.post("other").plugin.max_builds == 2
        w.controls.instead.clear()
        done = harness.reconfigure([again(w, max_builds=3), again(other, max_builds=2)])
        assert done == ["worker w: set up again"]
        assert harness.post("w").plugin.max_builds == 3
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
    flush_logged_errors(ValueError, PluginError)


def test_two_new_configurations_are_applied_one_after_the_other(tmp_path: Path) -> None:
    """The second waits for the first, and is compared with what that made."""
    with controller(tmp_path, w := obliging()) as harness:
        setting_up: Deferred[None] = Deferred()
        w.controls.instead["reconfigService"] = lambda: setting_up
        first = Deferred.fromCoroutine(harness.controller.reconfigure(harness.config([again(w, max_builds=2)])))
        second = Deferred.fromCoroutine(harness.controller.reconfigure(harness.config([again(w, max_builds=2)])))
        assert not first.called
        assert not second.called
        setting_up.callback(None)
        results: list[Any] = []
        first.addCallback(results.append)
        second.addCallback(results.append)
        assert results == [["worker w: changed"], ["nothing changed"]]


def test_a_worker_that_is_added_and_hangs_holds_up_no_other(tmp_path: Path, flush_logged_errors: Flush) -> None:
    """The other one that was added serves at once."""
    with controller(tmp_path) as harness:
        hangs, well = worker("hangs"), obliging("well")
        hangs.arguments[1]["controls"].instead["reconfigService"] = Deferred
        adding = Deferred.fromCoroutine(harness.controller.reconfigure(harness.config([hangs, well])))
        build = harness.submit(workers=["well"])
        harness.agent("well").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert not adding.called
        harness.advance(60)
        assert adding.called
    flush_logged_errors(PluginError)
