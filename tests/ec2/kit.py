"""What the tests of the EC2 worker share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from latent.model import JSON, Attempt
from latent.worker import Enrolment, Properties, WorkerBuild, hooks
from latent.worker.results import check_result, handle, listed, resume_result, start_result
from latent_ec2 import EC2LatentWorker
from tests.worker.kit import enrolment

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud

CONTROLLER = "c0ffee" * 5

AGENT = "echo agent of $LATENT_WORKER $LATENT_ATTEMPT $LATENT_TOKEN; sleep 1000"
"""A stand-in for an agent, which is there and does nothing."""


class Driven(EC2LatentWorker):
    """Its hooks, with their answers checked as the controller checks them. ``kept``: what it put on disk, in order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: list[JSON] = []
        self.told: list[str] = []
        self.handle_keeper = self._remember

    def _remember(self, attempt: Attempt, doc: JSON) -> Deferred[None]:
        self.kept.append(handle(self, doc))
        return deferLater(reactor, 0)  # type: ignore[arg-type]

    async def up(self, **properties: Any) -> tuple[str, ...]:
        build = WorkerBuild(1, "tests", Properties(properties, "Build"), self.told.append)
        return start_result(self, await hooks.call(self.start_instance, build))

    async def down(self, fast: bool = False) -> None:
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
        """Wait until it is no longer good; returns what it says then."""
        answer: str = await until(self._illness)
        return answer

    async def _illness(self) -> str:
        good, message = await self.check()
        return "" if good else message

    def begin(self, number: int, kept: JSON = None) -> None:
        """The controller begins another attempt, or the same once more after a crash."""
        self.enrolment = enrolment_of(self.name, number, kept)
        self.agent_attached = False


def declared(cloud: Cloud, name: str = "w", **keywords: Any) -> Driven:
    """Set up as a controller does it."""
    given = {
        "instance_type": "m5.large",
        "ami": cloud.image,
        "region": cloud.region,
        "endpoint_url": cloud.endpoint_url,
        "identifier": cloud.key_id,
        "secret_identifier": cloud.secret,
        "agent_command": AGENT,
        **keywords,
    }
    worker = Driven(name, None, **given)
    worker.reactor = reactor
    worker.state_dir = Path()
    args, kwargs = worker.arguments
    worker.reconfigService(*args, **kwargs)
    return worker


def in_attempt(cloud: Cloud, name: str = "w", number: int = 1, kept: JSON = None, **keywords: Any) -> Driven:
    worker = declared(cloud, name, **keywords)
    worker.begin(number, kept)
    return worker


def enrolment_of(name: str, number: int, kept: JSON = None) -> Enrolment:
    def tokens(attempt: Attempt) -> str:
        return f"secret-{attempt.worker}-{attempt.number}"

    return evolve(enrolment(name, number, CONTROLLER), kept=kept, tokens=tokens)


async def until(what: Callable[[], Any]) -> Any:
    """Ask in each turn of the reactor until the answer is true; the test's own time limit ends it."""
    while not (answer := await hooks.call(what)):
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]
    return answer
