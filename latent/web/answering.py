"""What all routes share: a request's body, a document as its answer, and the answer to what goes wrong."""

# mypy: disable-error-code="no-untyped-call"
# twisted.web.http.Request has no annotations.

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from latent.errors import (
    ConfigError,
    ControllerStopping,
    EnrolmentRefused,
    LatentError,
    LatentWorkerCannotSubstantiate,
    NotFound,
    RunNotFound,
    StoreError,
    WorkflowError,
)
from latent.model import JSON
from latent.store.runs import MachineBusy, RunsRefused, to_document
from latent.web.parse import ApiError

log = Logger()

T = TypeVar("T")

CODES: Sequence[tuple[type[LatentError], int]] = (
    (NotFound, 404),
    (RunNotFound, 404),
    (ConfigError, 400),
    (LatentWorkerCannotSubstantiate, 400),
    (EnrolmentRefused, 409),
    (MachineBusy, 409),
    (RunsRefused, 409),
    (StoreError, 503),
    (ControllerStopping, 503),
    (LatentError, 409),
)
"""The status for each error of the controller; the first that fits."""


def kept(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """What the coroutine answers. It comes to its end even if nobody waits for that any more.

    A request is cancelled when its connection is lost, in the middle of whatever it waits for. What has written to the store and
    has still to tell the rest of the controller must not be.
    """
    answer: Deferred[T] = Deferred()

    def tell(result: T | Failure) -> None:
        if not answer.called:
            answer.callback(result)
        elif isinstance(result, Failure) and result.check(LatentError) is None:
            log.failure("what a caller asked for who has gone away failed", result)

    Deferred.fromCoroutine(work).addBoth(tell)
    return answer


def body(request: Request) -> bytes:
    return request.content.read() if request.content else b""


def document(request: Request, doc: Mapping[str, JSON], code: int = 200) -> bytes:
    request.setResponseCode(code)
    request.setHeader("Content-Type", "application/json")
    return json.dumps(doc, default=str).encode() + b"\n"


def error(request: Request, code: int, message: str, remedy: str, more: Mapping[str, JSON] | None = None) -> bytes:
    """The document of an error, with its status."""
    return document(request, {"error": message, "remedy": remedy, **(more or {})}, code)


def failed(request: Request, failure: Failure) -> bytes:
    """The answer to a request that failed."""
    match failure.value:
        case CancelledError():
            return error(request, 503, "the request was given up", "the controller is stopping; try again when it is back")
        case ApiError() as cause:
            return error(request, cause.code, cause.error, cause.remedy)
        case LatentError() as cause:
            return _refused(request, cause)
        case HTTPException() as cause:
            return _unrouted(request, cause.code or 404)
        case cause:
            log.failure("{path} failed", failure, path=request.path)
            message = f"the controller failed: {type(cause).__name__}"
            return error(request, 500, message, "its log has the details: state/latent.log")


def _refused(request: Request, cause: LatentError) -> bytes:
    code = next(code for kind, code in CODES if isinstance(cause, kind))
    if isinstance(cause, ConfigError) and len(cause.errors) > 1:
        return error(request, code, str(cause), "", {"errors": cause.errors})
    message, _, remedy = str(cause).partition("; ")
    if isinstance(cause, MachineBusy):
        run = to_document(cause.occupant) if cause.occupant.id else None
        return error(request, code, message, remedy, {"build": cause.build_id, "run": run})
    if isinstance(cause, WorkflowError):
        # What a driver does next depends on the kind alone.
        return error(request, code, message, remedy, {"kind": type(cause).__name__})
    return error(request, code, message, remedy)


def _unrouted(request: Request, code: int) -> bytes:
    path = request.path.decode("utf-8", "replace")
    if code == 405:
        return error(request, 405, f"{path} does not take {request.method.decode('ascii', 'replace')}", "see docs/cli.md")
    return error(request, code, f"there is nothing at {path[:200]}", "the API is under /api/v1: see docs/cli.md")
