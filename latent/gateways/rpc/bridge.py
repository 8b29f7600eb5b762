"""Deferreds awaited from asyncio, where gRPC's handlers live.

`Deferred.asFuture` tells its Deferred of a cancellation one turn of the loop later, and a Deferred that fires in that turn
loses its result: a lease would be taken for a client that is gone. `Parked` cancels at once. `carried_out` is the opposite:
what a client asked for is done even if it hangs up meanwhile, because half a change is worse than an unread answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.errors import LatentError

log = Logger()


class Parked(asyncio.Future[Any]):
    """A Deferred that a client waits for; when the client goes, the Deferred is cancelled in the same turn."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._deferred = deferred
        deferred.addCallbacks(self._succeeded, self._failed)

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self._deferred.cancel()
        return cancelled

    def release(self, error: BaseException) -> None:
        """Answer the client with ``error`` now."""
        if not self.done():
            self.set_exception(error)
            self._deferred.cancel()

    def _succeeded(self, result: Any) -> None:
        if not self.done():
            self.set_result(result)

    def _failed(self, failure: Failure) -> None:
        if not self.done():
            self.set_exception(_error(failure))
        else:
            _unheard(failure)


def _error(failure: Failure) -> BaseException:
    return failure.value or RuntimeError("a failure without an error")


def _unheard(failure: Failure) -> None:
    """What its client would have been told is of no interest to anybody else."""
    if not isinstance(failure.value, CancelledError | LatentError):
        log.failure("a call failed after its client had gone", failure=failure)


async def carried_out(operation: Coroutine[Deferred[Any], Any, Any] | Deferred[Any]) -> Any:
    """The result of ``operation``, which is not stopped when the one who awaits it is cancelled."""
    deferred = operation if isinstance(operation, Deferred) else Deferred.fromCoroutine(operation)
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def succeeded(result: Any) -> None:
        if not future.done():
            future.set_result(result)

    def failed(failure: Failure) -> None:
        if not future.done():
            future.set_exception(_error(failure))
        else:
            _unheard(failure)

    deferred.addCallbacks(succeeded, failed)
    return await future
