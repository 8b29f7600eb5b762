"""A bot as the gateway knows it: its session, the leases that it was given, the call of its that waits for work."""

from __future__ import annotations

import hashlib
from collections import deque

from attrs import define, field
from twisted.internet.defer import DeferredLock

from latent.controller.sessions import Session
from latent.gateways.bots import translate
from latent.gateways.rpc.bridge import Parked
from latent.model import Lease, LeaseState
from latent.wire import bots_pb2 as pb

FREED = 32
"""How many cancelled leases are remembered: a bot whose call was cut off says once more that they are cancelled."""


@define(eq=False)
class Held:
    """A lease that the bot was given. ``begins``: its latest call says first that it has taken it. ``cancelled``: it is
    to end, and stays so until the bot knows; ``told``: it was told so."""

    lease: Lease
    begins: bool = False
    cancelled: bool = False
    told: bool = False
    _metadata: dict[LeaseState, bytes] = field(factory=dict)

    @property
    def id(self) -> str:
        """How the bot knows it."""
        return str(self.lease.run_id)

    def metadata(self, state: LeaseState) -> bytes:
        """How it stands, in the words of the Remote Execution API."""
        made = self._metadata.get(state)
        if made is None:
            made = self._metadata[state] = translate.metadata(self.lease, state)
        return made


@define(eq=False)
class Bot:
    """``name`` is the session's secret: whoever says it is the bot. ``id_hash``: of its bot_id, which may hold a token.

    ``leases``: by run; ``freed``: the last that were cancelled and are over. ``calls``: changes of the leases wait for one
    another here. ``turn``: how many calls it has made; ``poll``: the one that waits for a lease. ``status``: as it said last, a
    number of BotStatus.
    """

    session: Session
    name: str
    id_hash: str
    status: int = pb.BOT_STATUS_UNSPECIFIED
    leases: dict[int, Held] = field(factory=dict)
    freed: deque[int] = field(factory=lambda: deque(maxlen=FREED))
    calls: DeferredLock = field(factory=DeferredLock)
    turn: int = 0
    poll: Parked | None = None
    _bot_id: str | None = None

    @property
    def free(self) -> int:
        """How many more leases it takes."""
        return self.session.capacity - len(self.leases)

    def is_called(self, bot_id: str) -> bool:
        """Whether this is the bot_id that its session was opened with."""
        if bot_id != self._bot_id:
            if digest(bot_id) != self.id_hash:
                return False
            self._bot_id = bot_id
        return True


def digest(secret: str) -> str:
    """What is kept of a name or a bot_id, which may be seen where they may not."""
    return hashlib.sha256(secret.encode()).hexdigest()
