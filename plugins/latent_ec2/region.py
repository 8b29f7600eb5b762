"""One account in one region of EC2, as all workers of this process share it: its threads, its budget, its questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred

from latent.model import JSON
from latent.worker import Shared
from latent_ec2 import asking
from latent_ec2.account import Account
from latent_ec2.calls import Calls
from latent_ec2.ending import Endings, How
from latent_ec2.instances import Instance
from latent_ec2.launches import EXPIRY, Wish
from latent_ec2.poll import SETTLES, Poller
from latent_ec2.returning import Returns
from latent_ec2.starting import Starts
from latent_ec2.watched import QUIET, Heard, Wanted

__all__ = ["Heard", "How", "Region", "RegionStatus"]


@frozen(kw_only=True)
class RegionStatus:
    """What `latent health` shows of a region.

    ``calls``: by operation, as they were sent. ``throttles``: answers that asked for fewer calls. ``waiting``: attempts whose
    launch has not been answered. ``queued``: calls that wait for the budget. ``rate``: calls a second that the budget allows now,
    ``tokens``: how many at once. ``slowed_since``: POSIX seconds since which it is less than usual. ``down``: why the region
    can't be reached or refuses all calls, empty while it answers.
    """

    label: str
    calls: Mapping[str, int] = field(factory=dict)
    throttles: int = 0
    waiting: int = 0
    queued: int = 0
    rate: float = 0.0
    tokens: float = 0.0
    slowed_since: float | None = None
    watched: int = 0
    down: str = ""


class Region:
    """Made by `Region.of`, and kept by whoever uses it."""

    _regions: ClassVar[WeakValueDictionary[tuple[int, Account], Region]] = WeakValueDictionary()

    def __init__(
        self,
        account: Account,
        reactor: Any,
        *,
        wall: Callable[[], float] = time.time,
        calls: Calls | None = None,
        settles: float = SETTLES,
    ) -> None:
        """``wall``: POSIX seconds; all waiting is the reactor's. ``settles``: seconds after a call in which EC2 may not know yet
        what came of it."""
        self.account = account
        self._calls = calls or Calls(account, reactor)
        self._clock = reactor
        self._wall = wall
        self._poller = Poller(self._calls, reactor, wall, settles)
        self._endings = Endings(self._calls, self._poller, reactor)
        self._starts = Starts(self._calls, self._poller, self._endings.late, reactor, wall)
        self._returns = Returns(self._starts, self._poller, self._calls, self._endings.late, reactor, wall, settles)
        self._owned: dict[str | None, Shared[list[Instance]]] = {}

    @classmethod
    def of(cls, account: Account, reactor: Any) -> Region:
        """The one region of this account and reactor. Keep it, or it goes again."""
        key = (id(reactor), account)
        found = cls._regions.get(key)
        if found is None:
            found = cls._regions[key] = cls(account, reactor)
        return found

    def launch(self, wish: Wish) -> Deferred[Instance]:
        """An instance for an attempt: wishes of one shape that come within 50 ms become one RunInstances.

        LatentWorkerCapacityError, LatentWorkerQuotaError, LatentWorkerConfigurationError and others of `latent_ec2.faults` when
        EC2 refuses; `latent_ec2.faults.next_choice` says whether something else may be tried. Being throttled is no error: it
        waits. When the Deferred is cancelled, an instance that comes late is terminated.
        """
        return maybeDeferred(self._starts.launch, wish)

    def relaunch(self, document: JSON, wish: Wish) -> Deferred[Instance]:
        """The same after a crash, from what ``wish.keep`` got before it: the instance that there is, or the same launch again."""
        return maybeDeferred(self._returns.relaunch, document, wish)

    def destroy(self, document: JSON, *, soon: bool = False) -> Deferred[None]:
        """Terminate whatever the launch of this document made for its member; fires when it is confirmed to be gone.

        Where the call may have been made without an answer, that takes until an instance would be known to EC2 for certain.
        """
        return Deferred.fromCoroutine(self._destroy(document, soon))

    def watch(
        self,
        instance_id: str,
        heard: Heard,
        *,
        every: float = QUIET,
        expiry: float | None = EXPIRY,
        wanted: Wanted = lambda: True,
        born: float | None = None,
    ) -> None:
        """Call ``heard`` whenever the instance is seen to be other than it was (`known` tells how it was).

        ``heard`` gets None when EC2 no longer knows it. After that, or when it is `Instance.gone`, nothing more is heard of it.
        ``every``: seconds within which a change is to be noticed while nothing is awaited. ``expiry``: its `latent:expires` is
        pushed forward by as many seconds as long as it is ``wanted``; None leaves it alone. ``born``: see `look`.
        """
        self._poller.born(instance_id, born)
        self._poller.watch(instance_id, heard, every, expiry, wanted)

    def unwatch(self, instance_id: str, heard: Heard | None = None) -> None:
        """Call ``heard`` no more; None: nobody any more."""
        self._poller.unwatch(instance_id, heard)

    def look(self, instance_id: str, *, born: float | None = None) -> Deferred[Instance | None]:
        """The instance as it is after this call; None if there is no such instance. One question for all who ask at once.

        ``born``: POSIX seconds at which another process launched it, if that is known: EC2 may not know it yet. One that was
        launched here is pending until it does.
        """
        self._poller.born(instance_id, born)
        return self._poller.look(instance_id)

    def known(self, instance_id: str) -> Instance | None:
        """What was last seen of a watched instance, or one just launched, without asking."""
        return self._poller.known(instance_id)

    def find(self, *, launch: str | None = None, controller: str | None = None) -> Deferred[list[Instance]]:
        """The instances of a launch, terminated ones included; or all of a controller that are not gone; or, without arguments,
        of all controllers."""
        if launch is not None:
            return self._starts.find(launch)
        shared = self._owned.get(controller)
        if shared is None:
            ask = partial(asking.owned, self._calls, controller)
            shared = self._owned[controller] = Shared(lambda: Deferred.fromCoroutine(ask()))
        return shared.get()

    def end(self, instance_id: str, how: How = "terminate", *, soon: bool = False) -> Deferred[None]:
        """Terminate or stop an instance; fires when EC2 says that it is so. One that is gone is no error.

        Cancelling gives up the wait, not the end. ``soon``: not held back to be asked for together with others.
        """
        return self._endings.end(instance_id, how, soon)

    def restart(self, instance_id: str) -> Deferred[Instance]:
        """Start a stopped instance again."""
        return Deferred.fromCoroutine(self._endings.restart(instance_id))

    def call(self, operation: str, **parameters: Any) -> Deferred[dict[str, Any]]:
        """Any other operation of boto3's EC2 client, by its name there ("describe_images"), under the budget.

        Throttled calls, and those that nobody answers, are repeated: an operation that makes something needs a ClientToken.
        Errors are those of `latent_ec2.faults`.
        """
        return Deferred.fromCoroutine(self._calls.ask(operation, parameters))

    def status(self) -> RegionStatus:
        gate = self._calls.gate
        requests = gate.requests.bucket()
        slowed = None if requests.slowed_at is None else self._wall() - (self._clock.seconds() - requests.slowed_at)
        return RegionStatus(
            label=self.account.label,
            calls=dict(gate.calls),
            throttles=gate.throttles,
            waiting=len(self._starts),
            queued=len(gate.requests) + len(gate.instances),
            rate=requests.rate,
            tokens=max(0.0, requests.tokens),
            slowed_since=slowed,
            watched=len(self._poller),
            down=self._calls.down,
        )

    async def _destroy(self, document: JSON, soon: bool) -> None:
        if (instance_id := await self._returns.instance_of(document)) is not None:
            await self.end(instance_id, soon=soon)
