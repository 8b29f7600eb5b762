"""The calls of the peer protocol: paths and message types, for both ends (specs/peer.md, "Wire")."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from google.protobuf.message import Message

from latent.wire import peer_pb2 as pb

SERVICE = "proto.Woodpecker"
AUTH_SERVICE = "proto.WoodpeckerAuth"

PROTOCOL_VERSION = 16
"""The version of `peer.proto`; agents want exactly theirs."""

ALIVE = "I am alive!"
"""The one text that ReportHealth may say."""

TOKEN_KEY = "token"  # noqa: S105 -- the name of a metadata key
VERSION_KEY = "proto-version"
HOSTNAME_KEY = "hostname"

RESULT_KEY = "latent-result"
"""Metadata of Done: our agent's `latent.model.Result` value, which the stock message has no field for."""

EXIT_CODE_KEY = "latent-exit-code"
"""Metadata of Done: the exit code of the first failed step, likewise."""

IDLE_KEY = "latent-idle"
"""Metadata of UnregisterAgent: our agent runs nothing any more, whatever the controller thinks."""

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes; what a stock client receives at most, hence what either side may send."""

LOG_BATCH = 1024 * 1024
"""Bytes of log data after which an agent sends what it has."""

OUT, ERR, EXIT_CODE, METADATA, PROGRESS = range(5)
"""LogEntry.type."""


@frozen
class Call:
    """One call: its service, its name, and the messages that go each way."""

    service: str
    name: str
    request: type[Message]
    response: type[Message]

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    def parse_request(self, data: bytes) -> Any:
        return self.request.FromString(data)

    def parse_response(self, data: bytes) -> Any:
        return self.response.FromString(data)


AUTH = Call(AUTH_SERVICE, "Auth", pb.AuthRequest, pb.AuthResponse)
VERSION = Call(SERVICE, "Version", pb.Empty, pb.VersionResponse)
NEXT = Call(SERVICE, "Next", pb.NextRequest, pb.NextResponse)
INIT = Call(SERVICE, "Init", pb.InitRequest, pb.Empty)
WAIT = Call(SERVICE, "Wait", pb.WaitRequest, pb.WaitResponse)
DONE = Call(SERVICE, "Done", pb.DoneRequest, pb.Empty)
EXTEND = Call(SERVICE, "Extend", pb.ExtendRequest, pb.Empty)
UPDATE = Call(SERVICE, "Update", pb.UpdateRequest, pb.Empty)
LOG = Call(SERVICE, "Log", pb.LogRequest, pb.Empty)
REGISTER = Call(SERVICE, "RegisterAgent", pb.RegisterAgentRequest, pb.RegisterAgentResponse)
UNREGISTER = Call(SERVICE, "UnregisterAgent", pb.Empty, pb.Empty)
HEALTH = Call(SERVICE, "ReportHealth", pb.ReportHealthRequest, pb.Empty)
