"""Faults planted in a plugin that has none: what authors of plugins get wrong, each with the promise that it breaks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail

from latent.model import JSON
from latent.testing.contract import PROMISES
from latent.worker import ListedInstance, ThreadPool, discard
from tests.contract.shed import Animal, ShedLatentWorker

FAULTS: dict[type[ShedLatentWorker], frozenset[str]] = {}
"""The plugin with one fault -> the promises that it breaks."""

KEPT: list[Any] = []
"""What a plugin holds on to for ever."""


def breaks(*promises: str) -> Callable[[type[ShedLatentWorker]], type[ShedLatentWorker]]:
    def decorate(cls: type[ShedLatentWorker]) -> type[ShedLatentWorker]:
        assert set(promises) <= set(PROMISES)
        FAULTS[cls] = frozenset(promises)
        return cls

    return decorate


# --- declarations ------------------------------------------------------------------------------------------------------------


@breaks("mistakes-are-told")
class TrippingCheckConfig(ShedLatentWorker):
    """Stumbles over a wrong declaration in place of reporting it."""

    def checkConfig(self, name: str, password: str | None = None, *, shed: Any = None, feed: str = "hay", **kwargs: Any) -> None:
        super().checkConfig(name, password, shed=shed, **kwargs)
        feed[0]


@breaks("mistakes-are-told")
class SwallowingCheckConfig(ShedLatentWorker):
    """Takes keywords that it does not know."""

    def checkConfig(self, name: str, password: str | None = None, *, shed: Any = None, feed: str = "hay", **kwargs: Any) -> None:
        super().checkConfig(name, password, shed=shed, feed=feed)


@breaks("declaring-touches-nothing")
class BusyCheckConfig(ShedLatentWorker):
    """Does something when it is merely declared."""

    def checkConfig(self, name: str, password: str | None = None, *, shed: Any = None, feed: str = "hay", **kwargs: Any) -> None:
        super().checkConfig(name, password, shed=shed, feed=feed, **kwargs)
        shed.buy({"for": name})


@breaks("declared-again")
class ForgetfulReconfig(ShedLatentWorker):
    """A second reading of its declaration makes it forget its instance."""

    def reconfigService(self, name: str, password: str | None = None, **kwargs: Any) -> Any:
        self.bought = None
        return super().reconfigService(name, password, **kwargs)


@breaks("asking-changes-nothing")
class CheckLiveBuys(ShedLatentWorker):
    """Tries out whether it could start something by starting it."""

    async def check_live(self) -> list[str]:
        await self.threads.run(self.shed.buy, {"for": "a try"}, adopt=discard)
        return []


# --- starts ------------------------------------------------------------------------------------------------------------------


@breaks("repeated-start-is-the-same-start")
class NewStartEachTime(ShedLatentWorker):
    """Takes no notice of the idempotency token."""

    def once(self) -> str:
        return ""


@breaks("late-answer-is-not-lost")
class IdentityAfterwards(ShedLatentWorker):
    """Tags the instance when the provider has answered: one that is answered late is nobody's."""

    async def start_instance(self, build: Any) -> list[str]:
        self.bought = None
        tags = self.tags()

        def buy() -> str:
            name = self.buy({}, self.once())
            for one in self.shed.all():
                if one.name == name:
                    one.tags = tags
            return name

        self.bought = await self.threads.run(buy, adopt=self.came_late)
        return [self.bought]


@breaks("late-answer-is-not-lost", "cancelled-start-leaves-nothing")
class DroppedAnswer(ShedLatentWorker):
    """A start that was cancelled is forgotten, with what it makes: it is neither destroyed nor listed."""

    async def start_instance(self, build: Any) -> list[str]:
        self.bought = None
        tags = self.tags()
        try:
            self.bought = await self.threads.run(self.buy, tags, self.once(), adopt=self.orphan)
        except CancelledError:
            KEPT.append(tags)
            raise
        return [self.bought]

    def orphan(self, name: str) -> None:
        """Nobody sells it."""

    async def stop_instance(self, fast: bool = False) -> None:
        if self.bought is not None:
            await super().stop_instance(fast)

    async def list_instances(self) -> list[ListedInstance]:
        return [one for one in await super().list_instances() if {n: one.handle[n] for n in self.tag_names} not in KEPT]

    tag_names = ("controller", "worker", "attempt")


@breaks("failed-start-says-why")
class UntypedError(ShedLatentWorker):
    """A refusal of the provider comes out as whatever its SDK raises."""

    def buy(self, tags: Mapping[str, str], once: str) -> str:
        return {"hay": self.shed.buy}[self.feed](tags, once)


@breaks("one-start-one-instance")
class StartsTwo(ShedLatentWorker):
    """Makes one too many, with a token of its own."""

    def buy(self, tags: Mapping[str, str], once: str) -> str:
        super().buy(tags, once + "'")
        return super().buy(tags, once)


# --- stops -------------------------------------------------------------------------------------------------------------------


@breaks("one-start-one-instance")
class StopDoesNothing(ShedLatentWorker):
    """Answers, and leaves the instance."""

    async def stop_instance(self, fast: bool = False) -> None:
        self.bought = None


@breaks("stop-of-nothing")
class StopNeedsAStart(ShedLatentWorker):
    """Takes for granted that what is stopped was started."""

    async def stop_instance(self, fast: bool = False) -> None:
        if self.bought is None and fast is False and not self.started:
            raise KeyError("bought")
        await super().stop_instance(fast)

    started = False

    async def start_instance(self, build: Any) -> list[str]:
        self.started = True
        return await super().start_instance(build)

    async def resume_instance(self, handle: JSON) -> bool:
        self.started = True
        return await super().resume_instance(handle)


@breaks("stop-again")
class StopFailsForTheVanished(ShedLatentWorker):
    """What is gone already is an error."""

    async def stop_instance(self, fast: bool = False) -> None:
        if self.bought is not None and self.shed.state(self.bought) == "gone":
            raise LookupError(f"{self.bought} is not there")
        await super().stop_instance(fast)


@breaks("stop-stops-its-own", "workers-do-not-meet")
class StopsByPrefix(ShedLatentWorker):
    """Finds its instance by the beginning of a name, and any controller's."""

    def sell_all(self, tags: Mapping[str, str]) -> None:
        for one in self.shed.all():
            if "controller" in one.tags and one.tags["worker"].startswith(tags["worker"]):
                self.shed.sell(one.name)


@breaks("foreign-untouched")
class StopsTheForeign(ShedLatentWorker):
    """Takes what looks like its own for its own."""

    def sell_all(self, tags: Mapping[str, str]) -> None:
        for one in self.shed.all():
            if "controller" not in one.tags and self.shed.state(self.bought or "") != "gone":
                self.shed.sell(one.name)
        super().sell_all(tags)


# --- finding -----------------------------------------------------------------------------------------------------------------


@breaks("handle-finds-it-again")
class HandleInMemory(ShedLatentWorker):
    """The handle is worth nothing in another process."""

    def instance_handle(self) -> JSON:
        return {**super().instance_handle(), "object": id(self)}

    async def resume_instance(self, handle: JSON) -> bool:
        return await super().resume_instance(handle) and handle["object"] == id(self)


@breaks("no-secret-is-kept")
class SecretInHandle(ShedLatentWorker):
    """Keeps the agent's token where everybody can read it."""

    def instance_handle(self) -> JSON:
        handle = super().instance_handle()
        return None if handle is None else {**handle, "password": self.getRandomPass()}


@breaks("resume-only-its-own")
class ResumesAnything(ShedLatentWorker):
    """Believes the handle, and does not look."""

    async def resume_instance(self, handle: JSON) -> bool:
        self.bought = handle["name"]
        return True


@breaks("list-tells-all", "late-answer-is-not-lost", "destroy-is-confirmed")
class ListsItsOwn(ShedLatentWorker):
    """Lists its own worker's instances alone."""

    async def list_instances(self) -> list[ListedInstance]:
        return [one for one in await super().list_instances() if one.attempt.worker == self.name]


@breaks("list-tells-all", "foreign-untouched")
class ListsTheForeign(ShedLatentWorker):
    """Lists what merely looks like its own."""

    async def list_instances(self) -> list[ListedInstance]:
        found = await self.threads.run(self.shed.all, adopt=discard)
        return [self.listed(Animal(one.name, {"controller": "", **one.tags})) for one in found]


@breaks("list-tells-all", "destroy-is-confirmed")
class ExpiresAtOnce(ShedLatentWorker):
    """Says for how long an instance is wanted, where until when is asked."""

    def listed(self, one: Animal) -> ListedInstance:
        return evolve(super().listed(one), expires_at=7200.0)


@breaks("destroy-is-confirmed")
class DestroyFailsForTheVanished(ShedLatentWorker):
    """What is gone already is an error."""

    async def destroy_instance(self, handle: JSON) -> None:
        if await self.threads.run(self.shed.state, handle["name"], adopt=discard) == "gone":
            raise LookupError(f"{handle['name']} is not there")
        await super().destroy_instance(handle)


@breaks("destroy-is-confirmed")
class DestroysLater(ShedLatentWorker):
    """Answers when the provider has merely been asked."""

    async def destroy_instance(self, handle: JSON) -> None:
        reactor.callLater(0.1, self.shed.sell, handle["name"])  # type: ignore[attr-defined]


# --- health ------------------------------------------------------------------------------------------------------------------


@breaks("good-is-told")
class ImpatientCheck(ShedLatentWorker):
    """Whatever was asked for once counts as ill the next time."""

    checks = 0

    async def check_instance(self) -> tuple[bool, str]:
        self.checks += 1
        good, message = await super().check_instance()
        return good and self.checks < 2, message


@breaks("vanished-is-told")
class GoneIsGood(ShedLatentWorker):
    """An instance of which nothing is known counts as well."""

    async def check_instance(self) -> tuple[bool, str]:
        good, message = await super().check_instance()
        return good or message.endswith("is gone"), message


@breaks("exited-is-told")
class EndedIsGood(ShedLatentWorker):
    """An instance that is there counts as well, though nothing runs in it."""

    async def check_instance(self) -> tuple[bool, str]:
        good, message = await super().check_instance()
        return good or message.endswith("is ended"), message


@breaks("hung-is-told")
class CheckHangs(ShedLatentWorker):
    """Waits for an instance that never answers."""

    async def check_instance(self) -> tuple[bool, str]:
        good, message = await super().check_instance()
        if message.endswith("is hung"):
            await Deferred()
        return good, message


@breaks("exited-is-told", "hung-is-told", "vanished-is-told")
class NoReason(ShedLatentWorker):
    """Says that it is not well, and not why."""

    async def check_instance(self) -> tuple[bool, str]:
        return (await super().check_instance())[0], ""


# --- what it leaves ----------------------------------------------------------------------------------------------------------


@breaks("reactor-never-blocked")
class Blocks(ShedLatentWorker):
    """Sleeps in the reactor's thread."""

    async def check_instance(self) -> tuple[bool, str]:
        time.sleep(0.1)
        return await super().check_instance()


@breaks("reactor-never-blocked")
class Computes(ShedLatentWorker):
    """Computes in the reactor's thread."""

    async def stop_instance(self, fast: bool = False) -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
        await super().stop_instance(fast)


@breaks("nothing-left-in-the-process")
class PoolForEachStart(ShedLatentWorker):
    """Makes a pool of threads for each start, and never ends it."""

    async def start_instance(self, build: Any) -> list[str]:
        KEPT.append(ThreadPool("its own", 2, self.reactor))
        await KEPT[-1].run(time.monotonic, adopt=discard)
        return await super().start_instance(build)


@breaks("nothing-left-in-the-process")
class ThreadForEachStart(ShedLatentWorker):
    """Has each instance watched by a thread that does not end with it."""

    async def start_instance(self, build: Any) -> list[str]:
        KEPT.append(threading.Event())
        threading.Thread(target=KEPT[-1].wait, args=[30], daemon=True, name="watcher").start()
        return await super().start_instance(build)


@breaks("nothing-left-in-the-process")
class SocketForEachStart(ShedLatentWorker):
    """Opens a connection for each instance and keeps it."""

    async def start_instance(self, build: Any) -> list[str]:
        KEPT.append(socket.socket())
        return await super().start_instance(build)


@breaks("nothing-left-waiting")
class PollsForEver(ShedLatentWorker):
    """Goes on to ask for an instance that is gone."""

    async def start_instance(self, build: Any) -> list[str]:
        self.poll()
        return await super().start_instance(build)

    def poll(self) -> None:
        reactor.callLater(0.05, self.poll)  # type: ignore[attr-defined]


@breaks("errors-are-answered")
class LosesErrors(ShedLatentWorker):
    """An error ends in a Deferred that nobody looks at."""

    async def stop_instance(self, fast: bool = False) -> None:
        fail(LookupError("the barn is locked"))
        await super().stop_instance(fast)


def forget() -> None:
    """Let go of what the plugins hold on to."""
    for one in KEPT:
        match one:
            case ThreadPool():
                one.stop()
            case threading.Event():
                one.set()
            case socket.socket():
                one.close()
    KEPT.clear()
