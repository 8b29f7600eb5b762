"""Access tokens: an HS256 JWT for one session, good for an hour (specs/peer.md, "Auth")."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import jwt

from latent.errors import EnrolmentRefused

LIFETIME = 3600.0
"""Seconds that a token is good for calls; agents fetch another every 30 minutes."""

REFRESH_LEEWAY = 3600.0
"""Seconds after that in which it is still good for fetching another: a controller may have been away."""

REMEMBERED = 20_000
"""Verified tokens kept, so that a call does not pay for the signature each time."""


class Tokens:
    """``secret``: 32 bytes, the same after a restart. ``now``: POSIX seconds."""

    def __init__(self, secret: bytes, now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now
        self._verified: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def issue(self, session_id: int) -> str:
        now = self._now()
        claims = {"agent_id": session_id, "iat": math.floor(now), "exp": math.ceil(now + LIFETIME)}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def verify(self, token: str, leeway: float = 0.0) -> int:
        """The session that ``token`` was issued to. Raises EnrolmentRefused."""
        known = self._verified.get(token)
        if known is None:
            known = self._decode(token)
            self._verified[token] = known
            if len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)
        session_id, expires = known
        if self._now() >= expires + leeway:
            raise EnrolmentRefused("the access token is expired; call Auth again")
        return session_id

    def _decode(self, token: str) -> tuple[int, float]:
        # Times are compared with our own clock in `verify`; naming the algorithm is what keeps "none" and RS256 tokens out.
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "agent_id"]},
            )
        except jwt.InvalidTokenError as error:
            raise EnrolmentRefused(f"the access token is not valid ({error}); call Auth again") from None
        session_id, expires = claims["agent_id"], claims["exp"]
        if type(session_id) is not int or not isinstance(expires, int | float):
            raise EnrolmentRefused("the access token is not valid (claims of the wrong type); call Auth again")
        return session_id, float(expires)
