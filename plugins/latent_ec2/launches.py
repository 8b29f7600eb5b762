"""What is asked of RunInstances for several attempts at once: pure, from wishes to parameters and documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from latent.model import JSON, Attempt

UserData = Callable[[Sequence[Attempt]], str]
"""The user data of a launch with these members, in this order; the same for the same members, always."""

Keep = Callable[[JSON], Deferred[None]]
"""Persists a member's document; fires when it is on disk."""

EXPIRY = 7200.0
"""Seconds that an instance lives after its controller was last heard of."""


@frozen(kw_only=True)
class Wish:
    """One attempt wants an instance.

    ``request``: parameters of RunInstances that JSON can say, without MinCount, MaxCount, ClientToken and UserData; the launch's
    own tags are added. ``shape``: wishes of the same shape may become one launch, so it is a hash of all that makes launches
    differ. ``keep`` is called with the attempt's document before anything is asked for (and again if the launch has to be
    composed anew before it is sent). ``expiry``: see `EXPIRY`.
    """

    member: Attempt
    controller_id: str
    request: Mapping[str, Any]
    user_data: UserData = field(eq=False)
    shape: str
    keep: Keep = field(eq=False)
    expiry: float = EXPIRY
