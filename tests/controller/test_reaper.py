"""What a failed stop leaves behind is destroyed until its provider confirms that it is gone."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred

from latent.testing import BareLatentWorker, ControllerHarness, Controls
from tests.controller.kit import controller, obliging, worker


def condemned(harness: ControllerHarness, name: str = "w") -> None:
    """Attempt 1 of the worker whose stop fails; its instance stays."""
    controls = harness.post(name).plugin.controls  # type: ignore[attr-defined]
    controls.auto_stop = RuntimeError("the API is away")
    harness.submit(workers=[name])
    harness.agent(name).attach().work()


def fails() -> None:
    raise RuntimeError("still away")


def test_destroying_is_tried_again_with_back_off_until_it_is_confirmed(tmp_path: Path) -> None:
    """At once, then after 10, 20, 40 ... 600 s; health says how often, what went wrong, and that it goes on by itself."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        w.controls.instead["destroy_instance"] = fails
        condemned(harness)
        tries = [harness.clock.seconds()]
        for _ in range(100):
            harness.advance(30)
            if len(w.controls.destroyed) > len(tries):
                tries += [harness.clock.seconds()] * (len(w.controls.destroyed) - len(tries))
        row = harness.controller.reaper.cases()[0]
        assert [10 * 2**n for n in range(6)] == [10, 20, 40, 80, 160, 320]
        assert len(w.controls.destroyed) == 1 + 6 + (3000 - 630) // 600
        assert row.next_at - harness.clock.seconds() <= 600
        (item,) = harness.health("attempt w#1")
        assert f"tried {len(w.controls.destroyed)} times, last: RuntimeError: still away" in item.message
        assert "stop_instance failed" in item.message
        del w.controls.instead["destroy_instance"]
        harness.advance(600)
        assert not harness.health()
        assert not w.controls.instances


def test_what_is_condemned_is_remembered_over_restarts(tmp_path: Path) -> None:
    """The next controller goes on where this one stopped, with the same back-off."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        w.controls.instead["destroy_instance"] = fails
        condemned(harness)
        harness.advance(35)
        assert len(w.controls.destroyed) == 3
        harness.restart()
        assert len(w.controls.destroyed) == 3
        harness.advance(35)
        assert len(w.controls.destroyed) == 4
        w.controls.instead.clear()
        harness.advance(80)
        assert not w.controls.instances


def test_a_destruction_that_hangs_is_cut_off_and_tried_again(tmp_path: Path) -> None:
    """After five minutes; the other instances are not held up."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0), other := obliging("other", build_wait_timeout=0)) as harness:
        w.controls.instead["destroy_instance"] = Deferred
        condemned(harness)
        condemned(harness, "other")
        assert not other.controls.instances
        harness.advance(301)
        assert "did not answer in 300 s" in harness.health("attempt w#1")[0].message
        w.controls.instead.clear()
        harness.advance(10)
        assert not harness.health()


def test_an_attempt_without_a_handle_is_looked_for(tmp_path: Path) -> None:
    """A start that failed may have made an instance: it is found in the provider's list, or was never there."""
    with controller(tmp_path, made := worker("made"), never := worker("never")) as harness:
        for one in (made, never):
            one.controls.auto_stop = RuntimeError("there is nothing to stop")
            harness.submit(workers=[one.name])
        made.controls.start_answers(RuntimeError("timed out"), made=True)
        never.controls.start_answers(RuntimeError("refused"))
        harness.advance(0)
        assert made.controls.destroyed == [1]
        assert "it is asked once more" in harness.health("attempt never#1")[0].message, "a provider's list may lag behind"
        harness.advance(10)
        assert not harness.health("attempt never#1")
        assert not never.controls.destroyed
        for one in (made, never):
            one.controls.auto_stop = True


def test_without_a_hook_to_destroy_health_says_so_for_good(tmp_path: Path) -> None:
    """Nobody but an operator can see to it; it is not forgotten meanwhile, nor with a restart."""
    controls = Controls()
    controls.auto_start, controls.auto_stop = True, RuntimeError("no")
    harness = ControllerHarness(tmp_path, [BareLatentWorker("w", controls=controls, build_wait_timeout=0)])
    with harness:
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(100)
        assert "BareLatentWorker has no destroy_instance" in harness.health("attempt w#1")[0].message
        harness.restart()
        assert "by hand" in harness.health("attempt w#1")[0].message
        controls.auto_stop = True


def test_the_plugin_that_made_an_instance_destroys_it_though_its_worker_is_gone(tmp_path: Path) -> None:
    """Taking a worker out of the configuration does not leave its instance behind."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        w.controls.instead["destroy_instance"] = fails
        condemned(harness)
        harness.reconfigure([])
        assert "w" not in harness.controller.roster
        w.controls.instead.clear()
        harness.advance(10)
        assert not w.controls.instances
        assert not harness.health()


def test_what_a_late_start_makes_while_its_attempt_is_destroyed_is_destroyed_too(tmp_path: Path) -> None:
    """The list was empty when it was asked for, and the start answers before that is believed."""
    with controller(tmp_path, w := worker(start_timeout=10)) as harness:
        w.controls.deaf = w.controls.auto_stop = True
        build = harness.submit()
        harness.advance(40)
        listing: Deferred[list[object]] = Deferred()
        w.controls.instead["list_instances"] = lambda: listing
        late = w.controls.starts[0]
        harness.advance(10)
        assert not listing.called
        w.controls.instances.add(1)
        late.answer.callback(True)
        w.controls.instead.clear()
        listing.callback([])
        harness.advance(20)
        assert not w.controls.instances & {1}
        w.controls.deaf = w.controls.overlapped = False
        harness.cancel(build)
        w.controls.auto_start = True


def test_nothing_is_destroyed_any_more_when_the_controller_has_stopped(tmp_path: Path) -> None:
    """What is under way is cancelled and left to the next controller."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        cancelled: list[object] = []
        w.controls.instead["destroy_instance"] = lambda: Deferred(cancelled.append)
        condemned(harness)
        w.controls.auto_stop = True
        harness.stop()
        assert len(cancelled) == 1
        w.controls.instead.clear()
        harness.start()
        harness.advance(10)
        assert not w.controls.instances
