"""Why a bot's call is refused. The type says which gRPC status answers it, and so what the bot does next::

BotsError
  InvalidArgumentError             INVALID_ARGUMENT   the call is wrong, and would be so again
    BotSessionMismatchError          its name, its bot_id or its instance is not the session's
    BotSessionClosedError            the session is over, or another has taken its place
  DuplicateBotSessionError         ABORTED            another call of the same bot has taken this one's place
  LeaseLostError                   DATA_LOSS          bot and controller disagree about a lease
  RetriableError                   UNAVAILABLE        nothing is wrong with the call; the answer says when to try again
"""

from __future__ import annotations

from typing import ClassVar

import grpc

from latent.errors import LatentError

Code = grpc.StatusCode


class BotsError(LatentError):
    """The base of all."""

    code: ClassVar[grpc.StatusCode] = Code.INTERNAL


class InvalidArgumentError(BotsError):
    """The call is wrong; the message says what."""

    code = Code.INVALID_ARGUMENT


class BotSessionMismatchError(InvalidArgumentError):
    """The session is not the one that the call says: a stale bot's, or another instance's."""


class BotSessionClosedError(InvalidArgumentError):
    """The session is over, or its bot_id has a newer one."""


class DuplicateBotSessionError(BotsError):
    """Two calls of one bot at the same time: the newer one goes on."""

    code = Code.ABORTED


class LeaseLostError(BotsError):
    """A lease that the bot has is not the controller's, or the other way round. The session is closed."""

    code = Code.DATA_LOSS


class RetriableError(BotsError):
    """The controller can't answer just now. ``retry_after``: seconds after which it is worth another call."""

    code = Code.UNAVAILABLE

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)
