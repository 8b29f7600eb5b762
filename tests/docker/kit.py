"""What the tests of the Docker plugin share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from latent.worker import Enrolment, Properties, WorkerBuild, hooks
from latent.worker.results import check_result, handle, listed, resume_result, start_result
from latent_docker import DockerLatentWorker
from tests.worker.kit import enrolment

CONTROLLER = "c0ffee" * 5
OTHER = "decade" * 5


class Driven(DockerLatentWorker):
    """Its hooks, with their answers checked as the controller checks them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.changes: list[Deferred[None]] = []
        self.when_instance_changed = self._tell

    def _tell(self) -> None:
        waiting, self.changes = self.changes, []
        for one in waiting:
            one.callback(None)

    def change(self) -> Deferred[None]:
        """Fires when the plugin says that the instance may have changed."""
        self.changes.append(Deferred())
        return self.changes[-1]

    async def up(self, build: Any = None) -> tuple[str, ...]:
        return start_result(self, await hooks.call(self.start_instance, build))

    async def down(self, fast: bool = True) -> None:
        await hooks.call(self.stop_instance, fast)

    async def check(self) -> tuple[bool, str]:
        return check_result(self, await hooks.call(self.check_instance))

    def handle(self) -> Any:
        return handle(self, self.instance_handle())

    async def resume(self, doc: Any) -> bool:
        return resume_result(self, await hooks.call(self.resume_instance, doc))

    async def all(self) -> Any:
        return listed(self, await hooks.call(self.list_instances))

    async def ill(self) -> str:
        """Wait until it is no longer good; returns what it says then. Fails if it is good again and again."""
        for _ in range(100):
            change = self.change()
            good, message = await self.check()
            if not good:
                return message
            await change
        raise AssertionError("it stays good")


def in_attempt(name: str, number: int, *, state_dir: Path, controller: str = CONTROLLER, **keywords: Any) -> Driven:
    worker = Driven(name, None, **keywords)
    worker.reactor = reactor
    worker.state_dir = state_dir
    args, kwargs = worker.arguments
    worker.reconfigService(*args, **kwargs)
    worker.enrolment = enrolment_of(name, number, controller)
    return worker


def enrolment_of(name: str, number: int, controller: str = CONTROLLER) -> Enrolment:
    return enrolment(name, number, controller)


def build(told: list[str] | None = None, **properties: Any) -> WorkerBuild:
    write: Callable[[str], None] = (lambda line: None) if told is None else told.append
    return WorkerBuild(1, "tests", Properties(properties, "Build"), write)


async def until(what: Callable[[], Any]) -> Any:
    """Ask in each turn of the reactor until the answer is true; the test's own time limit ends it."""
    while not (answer := what()):
        await deferLater(reactor, 0.01)
    return answer
