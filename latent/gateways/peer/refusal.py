"""Which gRPC status says what. A stock agent retries UNAVAILABLE, UNAUTHENTICATED and DEADLINE_EXCEEDED, and few others."""

from __future__ import annotations

import grpc
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from latent.errors import EnrolmentRefused, LatentError, NotFound, NotYourRun, ProtocolError, RunNotFound, StoreError
from latent.gateways.rpc.refusal import Refusal
from latent.gateways.rpc.server import STOPPING

log = Logger()

Code = grpc.StatusCode


def stopping() -> Refusal:
    return Refusal(Code.UNAVAILABLE, STOPPING)


def refusal(error: BaseException, call: str) -> Refusal:
    """The status for an error that ``call`` raised. To be called while it is handled: one that nobody
    foresaw is logged with its traceback and named no further."""
    code: grpc.StatusCode
    match error:
        case Refusal():
            return error
        case EnrolmentRefused():
            code = Code.UNAUTHENTICATED
        case NotYourRun():
            code = Code.PERMISSION_DENIED
        case ProtocolError():
            code = Code.INVALID_ARGUMENT
        case NotFound() | RunNotFound():
            code = Code.NOT_FOUND
        case StoreError() | CancelledError():
            code = Code.UNAVAILABLE
        case LatentError():
            code = Code.FAILED_PRECONDITION
        case _:
            log.failure("{call} failed", call=call)
            return Refusal(Code.INTERNAL, f"{call} failed in the controller; its log says why")
    return Refusal(code, str(error) or type(error).__name__)
