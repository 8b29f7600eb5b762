"""The gRPC calls: from message to interface, from error to status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import grpc
from google.protobuf import empty_pb2
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from latent.errors import EnrolmentRefused, LatentError, ProtocolError, StoreError
from latent.gateways.bots import calls, translate
from latent.gateways.bots.errors import BotsError, BotSessionClosedError, InvalidArgumentError, RetriableError
from latent.gateways.bots.interface import BotsInterface
from latent.gateways.rpc.refusal import MESSAGE_LIMIT, Refusal
from latent.gateways.rpc.server import Context
from latent.wire import bots_pb2 as pb
from latent.wire import execution_pb2 as execution

log = Logger()

Code = grpc.StatusCode

DIGEST_FUNCTIONS = (
    execution.DigestFunction.SHA256,
    execution.DigestFunction.SHA384,
    execution.DigestFunction.SHA512,
    execution.DigestFunction.SHA1,
    execution.DigestFunction.MD5,
)
"""latent looks into no digest: bots may use whichever their payloads are made with."""


class Service:
    """``instances`` by name. ``exceptions``: how many calls failed through no fault of their callers, by name of the call."""

    def __init__(self, instances: Mapping[str, BotsInterface]) -> None:
        self.instances = instances
        self.exceptions: Counter[str] = Counter()

    async def create(self, request: pb.CreateBotSessionRequest, context: Context) -> pb.BotSession:
        interface = self._instance(request.parent)
        return await interface.create_bot_session(request.bot_session, context, context.time_remaining())

    async def update(self, request: pb.UpdateBotSessionRequest, context: Context) -> pb.BotSession:
        if request.name != request.bot_session.name:
            raise InvalidArgumentError("the name of the request and that of its bot session are not the same")
        interface = self.instances.get(request.name.rpartition("/")[0])
        if interface is None:
            raise BotSessionClosedError("no instance has a session of this name")
        answer, metadata = await interface.update_bot_session(request.bot_session, context, context.time_remaining())
        if metadata:
            context.set_trailing_metadata(metadata)
        return answer

    async def post_event(self, request: pb.PostBotEventTempRequest, context: Context) -> empty_pb2.Empty:
        raise Refusal(Code.UNIMPLEMENTED, "bots report no events here")

    async def capabilities(self, request: execution.GetCapabilitiesRequest, context: Context) -> execution.ServerCapabilities:
        """Bots ask this before anything else. Payloads are handed on as they are, so there is nothing that can't be done."""
        self._instance(request.instance_name)
        answer = execution.ServerCapabilities()
        answer.cache_capabilities.digest_functions.extend(DIGEST_FUNCTIONS)
        answer.execution_capabilities.digest_function = execution.DigestFunction.SHA256
        answer.execution_capabilities.digest_functions.extend(DIGEST_FUNCTIONS)
        answer.execution_capabilities.exec_enabled = True
        answer.low_api_version.major = answer.high_api_version.major = 2
        answer.high_api_version.minor = 3
        return answer

    def _instance(self, name: str) -> BotsInterface:
        interface = self.instances.get(name)
        if interface is None:
            known = ", ".join(repr(known) for known in self.instances)
            raise InvalidArgumentError(f"there is no instance {name[:100]!r} (there is {known})")
        return interface

    def refusal(self, error: BaseException, call: str) -> Refusal:
        """To be called while ``error`` is handled: one that nobody foresaw is logged with its traceback."""
        message = (str(error) or type(error).__name__)[:MESSAGE_LIMIT]
        code: grpc.StatusCode
        match error:
            case Refusal():
                return error
            case StoreError() | CancelledError():
                return self.refusal(RetriableError(message), call)
            case RetriableError():
                details = translate.details(error.code, message, error.retry_after)
                return Refusal(error.code, message, ((calls.DETAILS_KEY, details),))
            case BotsError():
                return Refusal(error.code, message)
            case EnrolmentRefused():
                return Refusal(Code.UNAUTHENTICATED, message)
            case ProtocolError():
                return Refusal(Code.INVALID_ARGUMENT, message)
            case LatentError():
                code = Code.FAILED_PRECONDITION
            case _:
                log.failure("{call} failed", call=call)
                code, message = Code.INTERNAL, f"{call} failed in the controller; its log says why"
        self.exceptions[call] += 1
        return Refusal(code, message)
