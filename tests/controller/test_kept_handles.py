"""A plugin writes down what it is about to ask its provider for, and gets it back when the start is repeated after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latent.errors import PluginError
from latent.model import JSON, Attempt, Result
from latent.store import attempts
from latent.testing import ControllableLatentWorker, ControllerHarness, Controls
from latent.worker import ProviderStatus, hooks, results
from tests.controller.kit import keeps_its_promises
from tests.worker.kit import Idle, enrolment, result_of


class Careful(ControllableLatentWorker):
    """Keeps a handle before it asks for the instance. ``seen``: what it was given back, by hook."""

    def checkConfig(self, name: str, password: str | None = None, controls: Any = None, **kwargs: Any) -> None:
        super().checkConfig(name, password, controls, **kwargs)
        self.seen: list[tuple[str, JSON]] = []

    async def start_instance(self, build: Any) -> Any:
        assert self.enrolment is not None
        self.seen.append(("start", self.enrolment.kept))
        await self.keep_handle({"attempt": self.enrolment.attempt.number, "asked": ("a", "b")})
        return await hooks.call(super().start_instance, build)

    def stop_instance(self, fast: bool = False) -> Any:
        assert self.enrolment is not None
        self.seen.append(("stop", self.enrolment.kept))
        return super().stop_instance(fast)

    def provider_status(self) -> ProviderStatus | None:
        if "provider_status" in self.controls.instead:
            answer: ProviderStatus = self.controls.instead["provider_status"]()
            return answer
        return ProviderStatus(subject="cloud one", message="12 calls")

    def list_scope(self) -> str:
        return "cloud one"


KEPT = {"attempt": 1, "asked": ["a", "b"]}


@contextmanager
def careful(tmp_path: Path, disk_seconds: float = 0.0) -> Iterator[tuple[ControllerHarness, Controls]]:
    controls = Controls()
    controls.auto_stop = True
    with ControllerHarness(tmp_path, [Careful("w", controls=controls)], disk_seconds=disk_seconds) as harness:
        yield harness, controls
    keeps_its_promises(controls)


def seen(harness: ControllerHarness) -> list[tuple[str, JSON]]:
    plugin = harness.post("w").plugin
    assert isinstance(plugin, Careful)
    return plugin.seen


def test_a_handle_is_on_disk_before_the_provider_is_asked(tmp_path: Path) -> None:
    """keep_handle answers when a crash can no longer lose it."""
    with careful(tmp_path, disk_seconds=5) as (harness, controls):
        harness.submit()
        while not seen(harness):
            harness.advance(1)
        assert not controls.starting
        harness.advance(5)
        assert controls.starting
        assert harness.disk(lambda conn: attempts.handle_of(conn, Attempt("w", 1))) == KEPT


def test_a_start_that_is_repeated_has_what_was_kept(tmp_path: Path) -> None:
    """The provider was asked, made nothing that can be seen, and the controller died: the same start is made again with it."""
    with careful(tmp_path) as (harness, controls):
        build = harness.submit()
        assert seen(harness) == [("start", None)]
        harness.restart()
        assert controls.resumed == [1]
        assert seen(harness) == [("start", KEPT)]
        controls.starts.pop(0)  # it was the same start
        controls.start_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert harness.disk(lambda conn: attempts.handle_of(conn, Attempt("w", 1))) == {"attempt": 1}


def test_an_instance_that_was_made_is_adopted_by_what_was_kept(tmp_path: Path) -> None:
    """The provider had made it before the crash: the kept handle finds it, and no second start is made."""
    with careful(tmp_path) as (harness, controls):
        build = harness.submit()
        controls.instance_appears()
        harness.restart()
        assert seen(harness) == []
        assert harness.post("w").plugin.enrolment.kept == KEPT  # type: ignore[union-attr]
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_the_next_attempt_has_nothing_of_the_one_before(tmp_path: Path) -> None:
    """What was kept belongs to one attempt."""
    with careful(tmp_path) as (harness, controls):
        harness.submit()
        controls.instance_appears()
        harness.restart()
        controls.instance_vanishes()
        harness.advance(11)
        controls.auto_start = True
        harness.advance(3600)
        assert seen(harness)[0] == ("stop", KEPT)
        assert seen(harness)[1] == ("start", None)


def test_a_stop_after_a_crash_has_what_was_kept(tmp_path: Path) -> None:
    """A start that nobody wanted any more when the controller died is undone by its handle."""
    with careful(tmp_path) as (harness, controls):
        build = harness.submit()
        harness.cancel(build)
        harness.restart()
        harness.advance(0)
        assert seen(harness) == [("stop", KEPT)]
        assert controls.destroyed == [1]


def test_what_can_not_be_kept() -> None:
    """Outside a controller nothing is kept; outside an attempt, nothing can be."""
    worker = Idle("w1")
    with pytest.raises(PluginError, match="keep_handle was called outside an attempt"):
        worker.keep_handle({})
    worker.enrolment = enrolment()
    assert result_of(worker.keep_handle({"a": 1})) is None


def test_a_handle_that_json_can_not_say(tmp_path: Path) -> None:
    """The error names the method that was called."""
    with careful(tmp_path) as (harness, _):
        harness.submit()
        with pytest.raises(PluginError, match=r"Careful\.keep_handle answered a dict, .* with the key 1"):
            result_of(harness.post("w").plugin.keep_handle({1: "a"}))


def test_a_provider_is_in_the_health_once(tmp_path: Path) -> None:
    """However many workers share it; what a plugin says wrongly is told as its own fault."""
    controls = Controls()
    with ControllerHarness(tmp_path, [Careful("w-{n}", count=3, controls=controls)]) as harness:
        items = [item for item in harness.controller.health() if item.subject == "cloud one"]
        assert [(item.ok, item.message) for item in items] == [(True, "12 calls")]
        controls.instead["provider_status"] = lambda: ProviderStatus(subject="x", message="m", ok=False, remedy="r")
        assert [(item.subject, item.message, item.remedy) for item in harness.health()] == [("x", "m", "r")]
        controls.instead["provider_status"] = lambda: None
        assert harness.health() == []
        controls.instead["provider_status"] = lambda: "all is well"
        assert "provider_status answered a str" in harness.health()[0].message
        controls.instead["provider_status"] = lambda: 1 / 0
        assert "its plugin can't say how its provider is: ZeroDivisionError" in harness.health()[0].message


@pytest.mark.parametrize(("answer", "mistakes"), [(None, ()), ([], ()), (("a; b",), ("a; b",))])
def test_mistakes_of_a_live_check(answer: Any, mistakes: tuple[str, ...]) -> None:
    """None, or an iterable of strings."""
    assert results.live_result(Idle("w1"), answer) == mistakes


@pytest.mark.parametrize("answer", ["wrong", 3, {"a": 1}, [3]])
def test_wrong_answers_of_a_live_check(answer: Any) -> None:
    """The plugin's fault, which is told."""
    with pytest.raises(PluginError, match="check_live answered"):
        results.live_result(Idle("w1"), answer)


def test_a_plugin_knows_whether_an_agent_ever_attached(tmp_path: Path) -> None:
    """Also after a restart, and anew for each attempt."""
    with careful(tmp_path) as (harness, controls):
        controls.auto_start = True
        harness.submit()
        assert harness.post("w").plugin.agent_attached is False
        harness.agent("w").attach().work()
        assert harness.post("w").plugin.agent_attached is True
        harness.restart()
        assert harness.post("w").plugin.agent_attached is True
        harness.advance(3600)
        harness.submit()
        assert harness.attempt("w") == 2
        assert harness.post("w").plugin.agent_attached is False
