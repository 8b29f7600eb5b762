"""Builds that want different images: none ever gets an instance of another's, whenever it comes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from latent.errors import EnrolmentRefused, NotYourRun
from latent.model import JSON, BuildState, Result
from latent.testing import BareLatentWorker, ControllableLatentWorker, ControllerHarness, Controls, SteppedAgent
from latent.worker import CompatibleLatentWorkerMixin, hooks
from latent.worker.properties import Property
from tests.controller.kit import controller, insubstantiate, made_controls

DISK = 0.1


class Images(CompatibleLatentWorkerMixin):
    """``slow``: what renders the image answers only when this fires."""

    slow: Deferred[None] | None = None

    async def renderWorkerProps(self, build: Any) -> JSON:
        if self.slow is not None:
            await self.slow
        image: JSON = await build.render(Property("image"))
        return image

    async def start_instance(self, build: Any) -> Any:
        await self.renderWorkerPropsOnStart(build)
        return await hooks.call(super().start_instance, build)  # type: ignore[misc]

    async def stop_instance(self, fast: bool = False) -> Any:
        answer = await hooks.call(super().stop_instance, fast)  # type: ignore[misc]
        self.resetWorkerPropsOnStop()
        return answer


class ImageWorker(Images, ControllableLatentWorker):
    """Its provider knows what each instance was made from."""

    def resume_instance(self, handle: JSON) -> Any:
        self.rememberWorkerProps(image_of(self.controls, handle["attempt"]))
        return super().resume_instance(handle)


class ForgetfulWorker(Images, BareLatentWorker):
    """Its plugin can't find instances again."""


def image_of(controls: Controls, attempt: int) -> str:
    """What the attempt's instance was made from."""
    build = next(call.build for call in controls.starts if call.attempt == attempt)
    assert build is not None
    image: str = build.getProperty("image")
    return image


def images(name: str = "w", kind: type[ControllableLatentWorker] = ImageWorker, **more: Any) -> ControllableLatentWorker:
    controls = Controls()
    controls.auto_start = controls.auto_stop = True
    return kind(name, controls=controls, **more)


def ask(harness: ControllerHarness, image: str) -> int:
    """A build that wants the image; what the disk has to do with it is done, no more."""
    return harness.submit(properties={"image": image})


def test_who_comes_while_a_start_is_being_written_down(tmp_path: Path) -> None:
    """The plugin has not heard of the start and would say that the instance will be made for whoever is asked about."""
    with controller(tmp_path, w := images(), disk_seconds=DISK) as harness:
        first = ask(harness, "sweet")
        harness.advance(DISK / 2)
        second = ask(harness, "sour")
        assert harness.worker_state("w") == "SUBSTANTIATING_STARTING"
        assert not w.controls.starts
        harness.advance(1)
        harness.agent("w").attach().work()
        assert harness.result(first) is Result.SUCCESS
        harness.advance(1)
        assert w.controls.builds == [first, second]
        harness.agent("w").attach().work()
        assert harness.result(second) is Result.SUCCESS


def test_one_start_is_shared_by_those_that_want_the_same(tmp_path: Path) -> None:
    """Of three builds asked for at once, the two that want the same image share an instance, the third gets its own."""
    with controller(
        tmp_path, one := images("one", max_builds=3), two := images("two", max_builds=3), disk_seconds=DISK
    ) as harness:
        harness.scheduling = False
        asked = [ask(harness, image) for image in ("sweet", "sour", "sweet")]
        harness.advance(2)
        assert (one.controls.builds, two.controls.builds) == ([asked[0]], [asked[1]])
        assert [harness.live_run(build).worker for build in asked] == ["one", "two", "one"]


def test_nobody_joins_those_that_wait_for_an_instance_which_is_not_begun(tmp_path: Path) -> None:
    """The last instance is still going, and the next is wanted by a build: another does not share what nobody knows yet."""
    with controller(tmp_path, w := images(max_builds=2)) as harness:
        ask(harness, "sweet")
        harness.agent("w").attach().work()
        w.controls.auto_stop = None
        insubstantiate(harness)
        first = ask(harness, "sweet")
        second = ask(harness, "sour")
        assert harness.worker_state("w") == "INSUBSTANTIATING_SUBSTANTIATING"
        assert "its next instance is made for another build" in harness.why(second)
        w.controls.stop_answers()
        w.controls.auto_stop = True
        harness.agent("w").attach().work()
        assert harness.result(first) is Result.SUCCESS
        harness.agent("w").attach().work()
        assert harness.result(second) is Result.SUCCESS


def test_what_is_being_rendered_is_not_shared(tmp_path: Path) -> None:
    """Until the plugin knows what its instance is made from, none is asked to join; then those that want the same do."""
    with controller(tmp_path, w := images(max_builds=2)) as harness:
        slow = w.slow = Deferred()  # type: ignore[attr-defined]
        first = ask(harness, "sweet")
        w.slow = None  # type: ignore[attr-defined]
        second = ask(harness, "sweet")
        assert harness.state(second) is BuildState.QUEUED
        slow.callback(None)
        harness.advance(0)
        assert {harness.live_run(first).attempt, harness.live_run(second).attempt} == {1}


def test_an_instance_that_can_not_be_resumed_is_nobody_elses(tmp_path: Path) -> None:
    """After a restart nobody knows what it was made from: its own build ends there, the next gets one made for it."""
    with controller(tmp_path, w := images(kind=ForgetfulWorker, max_builds=2)) as harness:
        first = ask(harness, "sweet")
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        harness.restart()
        second = ask(harness, "sour")
        harness.advance(10)
        assert harness.state(second) is BuildState.QUEUED
        agent.come_back().finish()
        assert harness.result(first) is Result.SUCCESS
        harness.advance(10)
        assert w.controls.builds == [first, second]
        harness.agent("w").attach().work()
        assert harness.result(second) is Result.SUCCESS


MOVES = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(["sweet", "sour"])),
    st.tuples(st.just("time"), st.sampled_from([0.0, DISK / 2, DISK, 3 * DISK, 30.0])),
    st.tuples(st.just("agent"), st.sampled_from(["one", "two"])),
    st.tuples(st.just("restart"), st.just("")),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(MOVES, max_size=40), st.sampled_from([ImageWorker, ForgetfulWorker]), st.integers(1, 3), st.sampled_from([0.0, 20.0])
)
def test_none_runs_in_the_others_image(
    moves: Sequence[tuple[str, Any]], kind: type[ControllableLatentWorker], max_builds: int, patience: float
) -> None:
    """Whatever comes when: every lease is of an instance that was made from what its build wants, and every build ends."""
    wanted: dict[int, str] = {}
    ran: dict[int, str] = {}
    with site(kind, max_builds, patience) as (harness, controls):
        agents: dict[tuple[str, int], SteppedAgent] = {}

        def work(worker: str) -> None:
            """The agents of all its instances carry out what is there for them."""
            for attempt in sorted(controls[worker].instances):
                agent = agents.setdefault((worker, attempt), harness.agent(worker, attempt))
                with suppress(
                    EnrolmentRefused, NotYourRun, AssertionError
                ):  # it is nobody's agent any more, or has nothing to do
                    agent.come_back()
                    while True:
                        lease = agent.take()
                        ran[lease.build_id] = image_of(controls[worker], attempt)
                        agent.begin()
                        agent.finish()

        for what, which in moves:
            match what:
                case "ask":
                    wanted[ask(harness, which)] = which
                case "time":
                    harness.advance(which)
                case "agent":
                    work(which)
                case "restart":
                    harness.restart()
        for _ in range(200):
            if all(harness.state(build) is BuildState.FINISHED for build in wanted):
                break
            harness.advance(30)
            work("one")
            work("two")
        assert {harness.result(build) for build in wanted} <= {Result.SUCCESS}
        assert ran == wanted


@contextmanager
def site(
    kind: type[ControllableLatentWorker], max_builds: int, patience: float
) -> Iterator[tuple[ControllerHarness, dict[str, Controls]]]:
    """Workers "one" and "two"."""
    both = [images(name, kind, max_builds=max_builds, build_wait_timeout=patience) for name in ("one", "two")]
    with tempfile.TemporaryDirectory() as folder, ControllerHarness(Path(folder), both, disk_seconds=DISK) as harness:
        yield harness, {one.name: made_controls(one) for one in both}
    for one in both:
        assert not made_controls(one).overlapped
        assert not made_controls(one).instances
