"""The messages of the Remote Workers API as the house's values, and back. Pure."""

from __future__ import annotations

import math

import grpc

from latent.gateways.bots.errors import InvalidArgumentError
from latent.model import Lease, LeaseState, Outcome, Payload, Result
from latent.wire import bots_pb2 as pb
from latent.wire import execution_pb2 as execution
from latent.wire import status_pb2

CAPACITY_KEY = "capacity"
"""The worker's config by which a bot says how many leases it takes at once; 1 where it says nothing."""

CAPACITY_LIMIT = 1000

DIGEST = "build.bazel.remote.execution.v2.Digest"
ACTION_RESULT = "build.bazel.remote.execution.v2.ActionResult"

STATES = {
    LeaseState.PENDING: pb.PENDING,
    LeaseState.ACTIVE: pb.ACTIVE,
    LeaseState.COMPLETED: pb.COMPLETED,
    LeaseState.CANCELLED: pb.CANCELLED,
}
STAGES = {
    LeaseState.PENDING: execution.ExecutionStage.QUEUED,
    LeaseState.ACTIVE: execution.ExecutionStage.EXECUTING,
    LeaseState.COMPLETED: execution.ExecutionStage.COMPLETED,
    LeaseState.CANCELLED: execution.ExecutionStage.COMPLETED,
}

RETRIED = (grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.UNAVAILABLE.value[0])
"""Statuses of a lease that blame the bot or what it stands on: the build is tried again."""

OUT_OF_TIME = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]

CODES = {code.value[0]: code.name for code in grpc.StatusCode}

INT64 = 1 << 63


def properties(worker: pb.Worker) -> dict[str, list[str]]:
    """What the bot offers: the worker's own properties, and those of the device that the bot is on, which is the first."""
    found: dict[str, list[str]] = {}
    for one in (*worker.properties, *(worker.devices[0].properties if worker.devices else ())):
        values = found.setdefault(one.key, [])
        if one.value not in values:
            values.append(one.value)
    return found


def capacity(worker: pb.Worker) -> int:
    """How many leases at once. Raises InvalidArgumentError."""
    for config in worker.configs:
        if config.key == CAPACITY_KEY:
            text = config.value
            if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:10]) <= CAPACITY_LIMIT or len(text) > 10:
                raise InvalidArgumentError(f"capacity {text[:20]!r} is not a number from 1 to {CAPACITY_LIMIT}")
            return int(text)
    return 1


def run_id(lease_id: str) -> int | None:
    """The run that a lease is of; None for what is no id of ours."""
    if not (lease_id.isascii() and lease_id.isdigit()) or len(lease_id) > 19:
        return None
    number = int(lease_id)
    return number if 0 < number < INT64 and str(number) == lease_id else None


def lease(given: Lease, state: LeaseState) -> pb.Lease:
    """What a bot is given: the payload as it was submitted, byte for byte."""
    message = pb.Lease(id=str(given.run_id), state=STATES[state])
    if given.payload is not None:
        message.payload.type_url = given.payload.type_url
        message.payload.value = given.payload.value
    for key, value in given.labels.items():
        message.requirements.properties.add(key=key, value=value)
    return message


def outcome(message: pb.Lease) -> Outcome:
    """How a lease ended that the bot calls COMPLETED. An ActionResult with an exit code says that itself."""
    answer = _answer(message)
    code = message.status.code
    if code == 0:
        exit_code = _exit_code(answer)
        if exit_code:
            return Outcome(result=Result.FAILURE, exit_code=exit_code, error=f"exit code {exit_code}", answer=answer)
        return Outcome(result=Result.SUCCESS, exit_code=0, answer=answer)
    error = CODES.get(code, str(code)) + (f": {message.status.message}" if message.status.message else "")
    if code in RETRIED:
        return Outcome(result=Result.EXCEPTION, error=error, answer=answer)
    if code == OUT_OF_TIME:
        return Outcome(result=Result.TIMEOUT, error=error, answer=answer)
    return Outcome(result=Result.FAILURE, error=error, answer=answer)


def _answer(message: pb.Lease) -> Payload | None:
    if not message.HasField("result"):
        return None
    return Payload(type_url=message.result.type_url, value=message.result.value)


def _exit_code(answer: Payload | None) -> int:
    if answer is None or _type(answer) != ACTION_RESULT:
        return 0
    try:
        return execution.ActionResult.FromString(answer.value).exit_code
    except Exception as error:  # protobuf has an exception of its own for each of its implementations
        raise InvalidArgumentError(f"the result of the lease is not a {ACTION_RESULT} ({error})") from None


def metadata(given: Lease, state: LeaseState) -> bytes:
    """How the lease stands, in the words of the Remote Execution API."""
    message = execution.ExecuteOperationMetadata(stage=STAGES[state])
    if given.payload is not None and _type(given.payload) == DIGEST:
        try:
            message.action_digest.MergeFromString(given.payload.value)
        except Exception:  # as above: what is submitted as a digest need not be one
            message.ClearField("action_digest")
    return message.SerializeToString()


def _type(payload: Payload) -> str:
    return payload.type_url.rpartition("/")[2]


def stamp(message: pb.BotSession, at: float) -> None:
    """Say when the next update is due, in POSIX seconds; not earlier than that."""
    nanos = math.ceil(at * 1e9)
    message.expire_time.seconds, message.expire_time.nanos = divmod(nanos, 1_000_000_000)


def details(code: grpc.StatusCode, message: str, retry_after: float) -> bytes:
    """The value of `calls.DETAILS_KEY` for an error after which another call may succeed."""
    info = status_pb2.RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = divmod(int(retry_after * 1e9), 1_000_000_000)
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(info)
    return status.SerializeToString()
