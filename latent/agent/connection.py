"""The agent's calls: authorised, and made again while the controller is away.

What an answer's status means (the other side is `latent/gateways/peer/refusal.py`):

    UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, ABORTED, DATA_LOSS   nobody is there, or is just going: try again, for ever
    UNAUTHENTICATED                                                 the access token is old: get another, then try again
    INTERNAL, UNKNOWN                                               a broken connection, or a defect: try again, not for ever
    anything else                                                   no: CallRefused
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from latent.errors import LatentError
from latent.wire import calls
from latent.wire import peer_pb2 as pb

log = logging.getLogger(__name__)

Code = grpc.StatusCode

AWAY = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.ABORTED, Code.DATA_LOSS})
DOUBTFUL = frozenset({Code.INTERNAL, Code.UNKNOWN})
DOUBTS = 8
"""How often in a row a doubtful answer is followed by another try."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
CALL_TIMEOUT = 30.0
REFRESH = 1800.0
"""Seconds after which another access token is fetched; one lasts for an hour."""

OPTIONS = (
    ("grpc.max_receive_message_length", calls.MAX_MESSAGE + 64 * 1024),
    ("grpc.max_send_message_length", calls.MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # the controller is named by its address; a proxy for the steps' sake is not on the way
)


class CallRefused(LatentError):
    """The controller says no to a call, and would again."""

    def __init__(self, call: str, code: grpc.StatusCode, details: str) -> None:
        self.code = code
        self.details = details
        super().__init__(f"{call}: {details} ({code.name})")

    @property
    def not_ours(self) -> bool:
        """The run is over, or somebody else's."""
        return self.code is Code.PERMISSION_DENIED


class SessionOver(LatentError):
    """The controller refuses this agent for good."""


def pauses() -> Any:
    """Seconds before each further try: doubling, and jittered so that many agents do not come back at once."""
    pause = FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311 -- no secret
        pause = min(pause * 2, LONGEST_PAUSE)


class Connection:
    """One session. ``heard``: the loop's time of the last answer, whatever it said."""

    def __init__(self, server: str, token: str, hostname: str, refresh: float = REFRESH) -> None:
        self.session_id = -1
        self.heard = asyncio.get_running_loop().time()
        self.renewed = asyncio.Event()
        self._token = token
        self._refresh = refresh
        self._access = ""
        self._fetched = 0.0
        self._authorising = asyncio.Lock()
        self._metadata = ((calls.HOSTNAME_KEY, hostname), (calls.VERSION_KEY, str(calls.PROTOCOL_VERSION)))
        self._channel = grpc.aio.insecure_channel(server, options=OPTIONS)
        self._stubs: dict[str, Any] = {}

    async def close(self) -> None:
        await self._channel.close()

    async def call(
        self, call: calls.Call, request: Any, *, timeout: float = CALL_TIMEOUT, metadata: Sequence[tuple[str, str]] = ()
    ) -> Any:
        """The answer, however long it takes to get one; ``timeout`` is for one try.

        Raises CallRefused, and SessionOver when the controller no longer knows this agent.
        """
        waits = pauses()
        doubts = 0
        while True:
            access = await self._authorised()
            try:
                return await self._try(call, request, timeout, (*self._metadata, (calls.TOKEN_KEY, access), *metadata))
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
            if code is Code.UNAUTHENTICATED:
                await self._authorise(access)
            elif code in DOUBTFUL:
                doubts += 1
            if code not in AWAY and code is not Code.UNAUTHENTICATED and not 0 < doubts <= DOUBTS:
                raise CallRefused(call.name, code, details)
            log.debug("%s: %s (%s); trying again", call.name, details, code.name)
            await asyncio.sleep(next(waits))

    async def _try(self, call: calls.Call, request: Any, timeout: float, metadata: Sequence[tuple[str, str]]) -> Any:
        stub = self._stubs.get(call.path)
        if stub is None:
            stub = self._stubs[call.path] = self._channel.unary_unary(
                call.path, request_serializer=call.request.SerializeToString, response_deserializer=call.parse_response
            )
        try:
            answer = await stub(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() not in AWAY:
                self.heard = asyncio.get_running_loop().time()
            raise
        self.heard = asyncio.get_running_loop().time()
        return answer

    async def _authorised(self) -> str:
        """An access token that is not too old."""
        if not self._access or asyncio.get_running_loop().time() - self._fetched > self._refresh:
            await self._authorise(self._access)
        return self._access

    async def _authorise(self, refused: str) -> None:
        """Get another access token than ``refused``, unless somebody just did. Raises SessionOver."""
        async with self._authorising:
            if self._access != refused:
                return
            waits = pauses()
            while True:
                request = pb.AuthRequest(agent_token=self._token, agent_id=self.session_id)
                try:
                    answer = await self._try(calls.AUTH, request, CALL_TIMEOUT, self._metadata)
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() not in AWAY | DOUBTFUL:
                        raise SessionOver(f"the controller refuses this agent: {error.details()}") from None
                    log.info("no controller answers (%s); trying again", error.details())
                await asyncio.sleep(next(waits))
            if self.session_id not in (-1, answer.agent_id):
                log.warning("session %d is over; this is session %d", self.session_id, answer.agent_id)
                self.renewed.set()
            self.session_id = answer.agent_id
            self._access = answer.access_token
            self._fetched = asyncio.get_running_loop().time()
