"""What the parts of the gateway need of each other and of the controller, as protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from latent.config.protocols import MSGPACK, PB

__all__ = ["MSGPACK", "PB", "Earlier", "Link", "Receiver", "Session", "Value", "Workers"]

Value = Any
"""What comes with an update: a number of rc, text of stdout, stderr, header and failure_reason; of any other key anything."""


class Receiver(Protocol):
    """Who hears of a command. Neither raises; ``lost`` comes in place of ``completed`` when the connection goes."""

    def updated(self, key: str, value: Value) -> None: ...

    def completed(self, error: str) -> None:
        """``error``: why the agent could not carry it out, "" if it could."""

    def lost(self, reason: str) -> None: ...


class Link(Protocol):
    """A connection to an agent. A call that the agent refuses, or that outlives the connection, fails its Deferred.

    ``received``: bytes that came so far: whoever sends lives. ``why_lost``: "" while the connection is there.
    """

    protocol: str
    on_lost: Callable[[str], None]

    @property
    def address(self) -> str: ...

    @property
    def received(self) -> int: ...

    @property
    def why_lost(self) -> str: ...

    async def describe(self) -> Mapping[str, Any]:
        """What the agent says of itself; "basedir" and "system" are among it."""

    async def prepare(self, slots: int) -> None:
        """Make the agent ready to run ``slots`` commands at once."""

    async def end(self, command_ids: Sequence[str]) -> None:
        """End what the agent may still be running of these, which were started over connections that are gone."""

    def ping(self) -> Deferred[Any]: ...

    def start(self, slot: int, command_id: str, name: str, args: dict[str, Any], receiver: Receiver) -> Deferred[Any]:
        """Fires when the agent has the command; what becomes of it goes to ``receiver``. One at a time in a slot, and one of
        an id."""

    def interrupt(self, slot: int, command_id: str, why: str) -> Deferred[Any]: ...

    def shut_down(self) -> Deferred[Any]:
        """The agent ends itself."""

    def pause(self, paused: bool) -> None:
        """Read no more from the connection, or go on."""

    def drop(self, reason: str) -> None:
        """Close the connection without another word. ``reason`` is what all who wait for the agent are told."""


class Earlier(Protocol):
    """A session before this one, of the same worker."""

    @property
    def id(self) -> int: ...

    @property
    def capacity(self) -> int: ...


class Session(Protocol):
    """An attached agent."""

    id: int
    worker: str
    attempt: int | None
    closed: bool

    @property
    def earlier(self) -> Sequence[Earlier]: ...

    def when_closed(self) -> Deferred[str]: ...


class Workers(Protocol):
    """The declared workers, by name."""

    def password(self, name: str) -> str | None:
        """What an agent of this worker has to know just now; None: there is no such worker, or no agent of it is expected."""

    def capacity(self, name: str) -> int:
        """How many builds at once."""
