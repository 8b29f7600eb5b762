"""What a bot says of a lease against what the controller knows of it (specs/bots.md, "Sync"). Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import assert_never

from latent.model import LeaseState
from latent.wire import bots_pb2 as pb


class Verdict(enum.Enum):
    """What becomes of a lease.

    IGNORED: the bot says once more that it is over. SENT: (again) in the answer. ACKNOWLEDGED: the bot has begun. HEARTBEAT: it
    goes on. FINISHED: it is over. TOLD: the answer says that it is cancelled. FREED: the bot knows that. LOST: the two disagree.
    """

    IGNORED = "ignored"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    HEARTBEAT = "heartbeat"
    FINISHED = "finished"
    TOLD = "told"
    FREED = "freed"
    LOST = "lost"


_OF_PENDING: Mapping[int | None, Verdict] = {
    None: Verdict.SENT,
    pb.PENDING: Verdict.SENT,
    pb.ACTIVE: Verdict.ACKNOWLEDGED,
    pb.COMPLETED: Verdict.FINISHED,
}

_OF_ACTIVE: Mapping[int | None, Verdict] = {
    pb.ACTIVE: Verdict.HEARTBEAT,
    pb.COMPLETED: Verdict.FINISHED,
}


def verdict(theirs: int | None, ours: LeaseState | None, *, told: bool = False) -> Verdict:
    """``theirs``: a state of `bots.proto`, None if the bot does not have the lease. ``ours`` None: the controller does not.

    ``told``: the bot was told before that the lease is cancelled; then one that it no longer has is as good as one that it says
    is cancelled.
    """
    match ours:
        case None:
            return Verdict.IGNORED if theirs == pb.COMPLETED else Verdict.LOST
        case LeaseState.PENDING:
            return _OF_PENDING.get(theirs, Verdict.LOST)
        case LeaseState.ACTIVE:
            return _OF_ACTIVE.get(theirs, Verdict.LOST)
        case LeaseState.CANCELLED:
            return Verdict.FREED if theirs == pb.CANCELLED or (theirs is None and told) else Verdict.TOLD
        case LeaseState.COMPLETED:
            return Verdict.IGNORED if theirs in (None, pb.COMPLETED) else Verdict.LOST
        case _:
            assert_never(ours)
