"""Who a bot is: it shows an attempt's token, or a plain worker's password.

In the order in which it is looked for:

1. gRPC metadata ``authorization: Bearer SECRET``, which a stock bot sends when it is given an access token; its bot_id may then
   be anything;
2. bot_id ``WORKER:SECRET``, for bots that send no metadata;
3. bot_id ``SECRET``.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from latent.controller.identity import token_hash
from latent.errors import EnrolmentRefused
from latent.gateways.bots.calls import AUTHORIZATION_KEY
from latent.gateways.bots.desk import Desk
from latent.store import attempts

BEARER = "bearer "


@frozen
class Claim:
    """What the bot says it is. ``worker`` None: its secret alone says which worker's."""

    worker: str | None
    secret: str


def claim(bot_id: str, context: Any) -> Claim:
    """``context``: that of the call; whatever has its ``invocation_metadata()``, or None."""
    metadata = context.invocation_metadata() if context is not None else None
    for key, value in metadata or ():
        if key == AUTHORIZATION_KEY and isinstance(value, str) and value[: len(BEARER)].lower() == BEARER:
            return Claim(None, value[len(BEARER) :].strip())
    worker, colon, secret = bot_id.partition(":")
    return Claim(worker, secret) if colon else Claim(None, bot_id)


async def worker_of(desk: Desk, claimed: Claim) -> str:
    """The worker that the secret is of. Raises EnrolmentRefused."""
    if claimed.worker is not None:
        return claimed.worker
    hashed = token_hash(claimed.secret)
    plain = desk.roster.by_password(hashed)
    if plain is not None:
        return plain
    attempt = await desk.store.read(lambda conn: attempts.attempt_of(conn, hashed))
    if attempt is None:
        raise EnrolmentRefused(
            "the bot shows neither an attempt's token nor a plain worker's password, in the metadata "
            f"'{AUTHORIZATION_KEY}: Bearer ...' or as its bot_id"
        )
    return attempt.worker
