"""A plugin that raises, answers nonsense, hands out asyncio's Futures, or never answers: the rest goes on, and health says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from latent.errors import PluginError
from latent.model import Result
from latent.testing import ControllableLatentWorker, ControllerHarness, Controls
from tests.controller.kit import obliging

Flush = Callable[..., list[Any]]
Hook = Callable[[], Any]


class Picky(ControllableLatentWorker):
    builds_may_be_incompatible = True


def _raises() -> Any:
    raise KeyError("instance_id")


def _exits() -> Any:
    raise SystemExit(3)


def _returns_future() -> Any:
    from twisted.internet import reactor

    return reactor._asyncioEventloop.create_future()  # type: ignore[attr-defined]  # it is asyncioreactor's


async def _awaits_future() -> Any:
    return await _returns_future()


def _generates() -> Iterator[str]:
    yield "a"
    raise RuntimeError("the iterable is the plugin's own code")


RAISES = pytest.param(_raises, "KeyError", id="raises")
EXITS = pytest.param(_exits, "SystemExit", id="exits")
RETURNS_FUTURE = pytest.param(_returns_future, "wrap it", id="returns a Future")
AWAITS_FUTURE = pytest.param(_awaits_future, "wrap it", id="awaits a Future")
NEVER = pytest.param(Deferred, "did not answer", id="never answers")
WRONGS = [RAISES, EXITS, RETURNS_FUTURE, AWAITS_FUTURE, NEVER]


def wrong(value: Any, shown: str) -> Any:
    return pytest.param(lambda: value, shown, id="wrong type")


def others_go_on(harness: ControllerHarness) -> None:
    """The worker beside the bad one carries out a build."""
    build = harness.submit(workers=["well"])
    harness.agent("well").attach().work()
    assert harness.result(build) is Result.SUCCESS


def said(harness: ControllerHarness) -> str:
    return "\n".join(f"{item.subject}: {item.message}; {item.remedy}" for item in harness.health())


@pytest.fixture
def bad() -> Picky:
    controls = Controls()
    controls.auto_start = controls.auto_stop = True
    return Picky("bad", controls=controls, start_timeout=20, stop_timeout=20, build_wait_timeout=0)


@pytest.fixture
def harness(tmp_path: Path, bad: Picky, flush_logged_errors: Flush) -> Iterator[ControllerHarness]:
    with ControllerHarness(tmp_path, [bad, obliging("well", build_wait_timeout=0)]) as made:
        yield made
        bad.arguments[1]["controls"].instead.clear()
    # That a plugin's errors are logged with their place is what its author wants.
    flush_logged_errors(PluginError, KeyError, SystemExit, TypeError, RuntimeError)


@pytest.mark.parametrize(
    ("hook", "message"), [*WRONGS, wrong(3, "answered an int"), pytest.param(_generates, "Runtime", id="iterates")]
)
def test_start_instance(harness: ControllerHarness, bad: Picky, hook: Hook, message: str) -> None:
    """The start counts as failed: the build waits for another worker or the end of the back-off, the instance is stopped."""
    bad.controls.instead["start_instance"] = hook
    build = harness.submit(workers=["bad"])
    others_go_on(harness)
    harness.advance(20)
    assert message in harness.why(build) or message in harness.runs(build)[0].run.error_msg
    assert "worker bad: backs off" in said(harness)
    assert len(bad.controls.starts) == len(bad.controls.stops)
    bad.controls.instead.clear()
    harness.advance(30)
    harness.agent("bad").attach().work()
    assert harness.result(build) is Result.SUCCESS


@pytest.mark.parametrize(("hook", "message"), [*WRONGS, wrong({1: object()}, "answered a dict")])
def test_instance_handle(harness: ControllerHarness, bad: Picky, hook: Hook, message: str) -> None:
    """Without a handle the instance can't be found again, so the start counts as failed, and the instance is stopped."""
    bad.controls.instead["instance_handle"] = hook
    build = harness.submit(workers=["bad"])
    others_go_on(harness)
    harness.advance(20)
    assert message in harness.runs(build)[0].run.error_msg
    assert "worker bad: backs off" in said(harness)
    assert not bad.controls.instances


@pytest.mark.parametrize(("hook", "message"), WRONGS)
def test_stop_instance(harness: ControllerHarness, bad: Picky, hook: Hook, message: str) -> None:
    """The instance is destroyed instead; the next build is not held up."""
    bad.controls.instead["stop_instance"] = hook
    bad.controls.instead["destroy_instance"] = _raises
    harness.submit(workers=["bad"])
    harness.agent("bad").attach().work()
    others_go_on(harness)
    harness.advance(20)
    reason = "was cut short" if hook is Deferred else message
    assert "attempt bad#1: its instance may still be there" in said(harness)
    assert reason in said(harness) or "cancelled" in said(harness)
    bad.controls.instead.clear()
    harness.advance(30)
    assert bad.controls.instances == set()
    build = harness.submit(workers=["bad"])
    harness.agent("bad").attach().work()
    assert harness.result(build) is Result.SUCCESS


@pytest.mark.parametrize(("hook", "message"), WRONGS)
def test_destroy_instance(harness: ControllerHarness, bad: Picky, hook: Hook, message: str) -> None:
    """It is tried again until it is confirmed."""
    bad.controls.auto_stop = RuntimeError("no")
    bad.controls.instead["destroy_instance"] = hook
    harness.submit(workers=["bad"])
    harness.agent("bad").attach().work()
    others_go_on(harness)
    harness.advance(301)
    assert "attempt bad#1" in said(harness)
    assert message in said(harness)
    bad.controls.auto_stop = True
    bad.controls.instead.clear()
    harness.advance(600)
    assert not harness.health()


@pytest.mark.parametrize(("hook", "message"), [*WRONGS, wrong(True, "answered a bool"), wrong((1, 2, 3), "answered a tuple")])
@pytest.mark.parametrize("attached", [False, True])
def test_check_instance(harness: ControllerHarness, bad: Picky, hook: Hook, message: str, attached: bool) -> None:
    """The instance counts as not good: before its agent came, it is given up; after that, it goes after its build."""
    bad.controls.instead["check_instance"] = hook
    build = harness.submit(workers=["bad"])
    agent = harness.agent("bad")
    if attached:
        agent.attach()
        agent.take()
        agent.begin()
    others_go_on(harness)
    for _ in range(7):
        harness.advance(10)
        if attached:
            agent.renew()
        elif harness.runs(build)[0].run.status.is_terminal:
            break
    assert message in (said(harness) if attached else harness.runs(build)[0].run.error_msg)
    if attached:
        assert "worker bad: check_instance says" in said(harness)
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
    assert len(bad.controls.stops) == 1


@pytest.mark.parametrize(("hook", "message"), [*WRONGS, wrong("yes", "answered a str")])
def test_is_compatible_with_build(harness: ControllerHarness, bad: Picky, hook: Hook, message: str) -> None:
    """It counts as a no: the instance is replaced for the build; builds for others do not wait for the answer."""
    harness.reconfigure([Picky("bad", controls=bad.controls, build_wait_timeout=600), obliging("well", build_wait_timeout=0)])
    harness.submit(workers=["bad"])
    harness.agent("bad").attach().work()
    bad.controls.instead["isCompatibleWithBuild"] = hook
    build = harness.submit(workers=["bad"])
    others_go_on(harness)
    harness.advance(30)
    assert message in said(harness)
    assert bad.controls.builds == [1, build]
    harness.agent("bad").attach().work()
    assert harness.result(build) is Result.SUCCESS


@pytest.mark.parametrize(("hook", "message"), [*WRONGS, wrong(1, "answered an int")])
def test_resume_instance(harness: ControllerHarness, bad: Picky, hook: Hook, message: str) -> None:
    """Nobody can tell whether the instance is there: its agent may prove it."""
    build = harness.submit(workers=["bad"])
    agent = harness.agent("bad").attach()
    agent.take()
    agent.begin()
    bad.controls.instead["resume_instance"] = hook
    harness.restart()
    agent.come_back(attach=False)
    others_go_on(harness)
    harness.advance(30)
    agent.renew()
    harness.advance(31)
    assert message in said(harness)
    agent.finish()
    assert harness.result(build) is Result.SUCCESS


@pytest.mark.parametrize(("hook", "message"), [*WRONGS, wrong(["i-0abc"], "answered a list"), wrong(None, "answered None")])
def test_list_instances(harness: ControllerHarness, bad: Picky, hook: Hook, message: str) -> None:
    """Strays would not be seen, and that is said; workers that have a handle do not need the list."""
    harness.submit(workers=["bad"])
    harness.agent("bad").attach()
    bad.controls.instead["list_instances"] = hook
    harness.restart()
    others_go_on(harness)
    harness.advance(61)
    assert message in said(harness)
    assert "its instances could not be listed" in said(harness)


@pytest.mark.parametrize(("hook", "message"), WRONGS)
def test_reconfig_service(harness: ControllerHarness, bad: Picky, hook: Hook, message: str) -> None:
    """A worker that can't be set up gets no builds; that holds up no other, nor the start of the controller."""
    bad.controls.instead["reconfigService"] = hook
    harness.restart()
    others_go_on(harness)
    harness.advance(61)
    assert "worker bad: it gets no builds: reconfigService failed" in said(harness)
    assert message in said(harness)
    assert "reconfigService failed" in harness.why(harness.submit(workers=["bad"]))


def test_a_plugin_that_raises_where_nobody_expects_it_is_left_out_of_the_plan(
    harness: ControllerHarness, bad: Picky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planner goes on without it."""
    monkeypatch.setattr(bad, "offer", _raises)
    others_go_on(harness)
    assert "KeyError" in said(harness)
