"""What an error of a plugin's hook means for the builds that wait for it."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure as TwistedFailure

from latent.core.events import Failure, Fault
from latent.errors import LatentWorkerCannotSubstantiate, LatentWorkerSubstantiationCancelled


def failure_of(failure: TwistedFailure) -> Failure:
    """By the error's type alone; an error that is not ours is the infrastructure's."""
    error = failure.value
    kind = type(error).__name__
    message = str(error) or kind
    if isinstance(error, LatentWorkerCannotSubstantiate):
        return Failure(Fault.BUILD, message, kind)
    if isinstance(error, LatentWorkerSubstantiationCancelled):
        return Failure(Fault.NOBODY, message, kind)
    if isinstance(error, CancelledError):
        return Failure(Fault.INFRASTRUCTURE, "it was cancelled", kind)
    return Failure(Fault.INFRASTRUCTURE, message if kind in message else f"{kind}: {message}", kind)
