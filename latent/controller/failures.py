"""What an error of a plugin's hook means for the builds that wait for it."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure as TwistedFailure

from latent.core.events import Failure, Fault
from latent.errors import LatentError, LatentWorkerCannotSubstantiate, LatentWorkerSubstantiationCancelled


def failure_of(failure: TwistedFailure) -> Failure:
    """By the error's type alone; an error that is not ours is the infrastructure's."""
    error = failure.value
    assert error is not None
    kind = type(error).__name__
    if isinstance(error, LatentWorkerCannotSubstantiate):
        return Failure(Fault.BUILD, str(error) or kind, kind)
    if isinstance(error, LatentWorkerSubstantiationCancelled):
        return Failure(Fault.NOBODY, str(error) or kind, kind)
    if isinstance(error, CancelledError):
        return Failure(Fault.INFRASTRUCTURE, "it was cancelled", kind)
    return Failure(Fault.INFRASTRUCTURE, explained(error), kind)


def explained(error: BaseException) -> str:
    """The error in words; one that is not ours with its type, as a KeyError's own words are no more than the key."""
    kind = type(error).__name__
    message = str(error)
    if isinstance(error, LatentError) or kind in message:
        return message or kind
    return f"{kind}: {message}" if message else kind
