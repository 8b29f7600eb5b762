"""The calls that bots make: paths and message types."""

from __future__ import annotations

from google.protobuf import empty_pb2

from latent.controller.sessions import BOTS
from latent.wire import bots_pb2 as pb
from latent.wire import execution_pb2 as execution
from latent.wire.calls import Call

PROTOCOL = BOTS

SERVICE = "google.devtools.remoteworkers.v1test2.Bots"
CAPABILITIES_SERVICE = "build.bazel.remote.execution.v2.Capabilities"

CREATE = Call(SERVICE, "CreateBotSession", pb.CreateBotSessionRequest, pb.BotSession)
UPDATE = Call(SERVICE, "UpdateBotSession", pb.UpdateBotSessionRequest, pb.BotSession)
POST_EVENT = Call(SERVICE, "PostBotEventTemp", pb.PostBotEventTempRequest, empty_pb2.Empty)
CAPABILITIES = Call(CAPABILITIES_SERVICE, "GetCapabilities", execution.GetCapabilitiesRequest, execution.ServerCapabilities)

AUTHORIZATION_KEY = "authorization"
METADATA_KEY = "executeoperationmetadata-bin"
"""Trailing metadata of an answer: an ExecuteOperationMetadata for each of its leases, in their order."""

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata of an error: a google.rpc.Status, with a RetryInfo where another call may succeed."""
