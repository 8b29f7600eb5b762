"""One account in one region of EC2, as all workers of this process share it: its threads, its budget, its questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal
from weakref import WeakValueDictionary

from attrs import field, frozen
from twisted.internet.defer import Deferred

from latent.model import JSON
from latent_ec2.account import Account
from latent_ec2.instances import Instance
from latent_ec2.launches import EXPIRY, Wish

Heard = Callable[[Instance | None], None]

How = Literal["terminate", "stop", "hibernate"]

QUIET = 30.0
"""Seconds between two looks at instances that run and from which nothing is awaited."""


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

    def __init__(self, account: Account, reactor: Any, *, wall: Callable[[], float] = time.time) -> None:
        self.account = account

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
        EC2 refuses. Being throttled is no error: it waits. When the Deferred is cancelled, an instance that comes late is
        terminated.
        """
        raise NotImplementedError

    def relaunch(self, document: JSON, wish: Wish) -> Deferred[Instance]:
        """The same after a crash, from what ``wish.keep`` got before it: the instance that there is, or the same launch again."""
        raise NotImplementedError

    def destroy(self, document: JSON) -> Deferred[None]:
        """Terminate whatever the launch of this document made for its member; fires when it is confirmed to be gone.

        For a document without an instance: LatentWorkerFailedToSubstantiate while a late one may still appear.
        """
        raise NotImplementedError

    def watch(self, instance_id: str, heard: Heard, *, every: float = QUIET, expiry: float | None = EXPIRY) -> None:
        """Call ``heard`` when the instance changes, and once when it has first been seen.

        ``heard`` gets None when EC2 no longer knows it. After that, or when it is `Instance.gone`, nothing more is heard of it.
        ``every``: seconds within which a change is to be noticed while nothing is awaited. ``expiry``: its `latent:expires` is
        pushed forward by as many seconds; None leaves it alone.
        """
        raise NotImplementedError

    def unwatch(self, instance_id: str, heard: Heard | None = None) -> None:
        """Call ``heard`` no more; None: nobody any more."""
        raise NotImplementedError

    def look(self, instance_id: str) -> Deferred[Instance | None]:
        """The instance as it is after this call; None if there is no such instance. One question for all who ask at once."""
        raise NotImplementedError

    def known(self, instance_id: str) -> Instance | None:
        """What was last seen of a watched instance, without asking."""
        raise NotImplementedError

    def find(self, *, launch: str | None = None, controller: str | None = None) -> Deferred[list[Instance]]:
        """The instances of a launch, terminated ones included; or all of a controller that are not gone; or, without arguments,
        of all controllers."""
        raise NotImplementedError

    def end(self, instance_id: str, how: How = "terminate", *, soon: bool = False) -> Deferred[None]:
        """Terminate or stop an instance; fires when EC2 says that it is so. One that is gone is no error.

        Cancelling gives up the wait, not the end. ``soon``: not held back to be asked for together with others.
        """
        raise NotImplementedError

    def restart(self, instance_id: str) -> Deferred[Instance]:
        """Start a stopped instance again."""
        raise NotImplementedError

    def call(self, operation: str, **parameters: Any) -> Deferred[dict[str, Any]]:
        """Any other operation of boto3's EC2 client, by its name there ("describe_images"), under the budget.

        Throttled calls, and those that nobody answers, are repeated: an operation that makes something needs a ClientToken.
        Errors are those of `latent_ec2.faults`.
        """
        raise NotImplementedError

    def status(self) -> RegionStatus:
        raise NotImplementedError
