"""Peer's messages as the house's values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from latent.errors import ProtocolError
from latent.model import LogLine, Outcome, Result, StepState, StepStatus
from latent.wire import calls
from latent.wire import peer_pb2 as pb

INT64 = 1 << 63


def run_id(text: str) -> int:
    """A workflow's id. Raises ProtocolError unless it is a decimal int64."""
    if not (text.isascii() and text.removeprefix("-").isdigit()) or len(text) > 20 or not -INT64 <= int(text) < INT64:
        raise ProtocolError(f"{text[:40]!r} is not a workflow id: a decimal number is")
    return int(text)


def step_state(state: pb.StepState, name: str, now: float) -> StepState:
    """What Update says. A stock agent leaves ``started`` 0 in the update that says that the step has started."""
    status = StepStatus.RUNNING
    if state.skipped:
        status = StepStatus.SKIPPED
    elif state.canceled:
        status = StepStatus.KILLED
    elif state.exited:
        status = StepStatus.FAILURE if state.exit_code or state.error else StepStatus.SUCCESS
    over = status is not StepStatus.RUNNING
    return StepState(
        uuid=state.step_uuid,
        name=name,
        status=status,
        started_at=None if status is StepStatus.SKIPPED else float(state.started or now),
        ended_at=float(state.finished or now) if over else None,
        exit_code=state.exit_code if over and status is not StepStatus.SKIPPED else None,
        error=state.error,
    )


def log_line(entry: pb.LogEntry) -> LogLine:
    """Bytes that are not UTF-8 become replacement characters; the line's end is left out."""
    stream = {calls.OUT: "stdout", calls.ERR: "stderr"}.get(entry.type, "header")
    text = entry.data.decode(errors="replace").removesuffix("\n").removesuffix("\r")
    return LogLine(step_uuid=entry.step_uuid, line=entry.line, time=float(entry.time), stream=stream, text=text)


def batches(lines: Iterable[LogLine], limit: int = calls.LOG_BATCH) -> Iterator[list[LogLine]]:
    """``lines`` in parts of at most ``limit`` characters; a longer line is alone in its part."""
    part: list[LogLine] = []
    size = 0
    for line in lines:
        if part and size + len(line.text) > limit:
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line.text)
    if part:
        yield part


def outcome(state: pb.WorkflowState, steps: Sequence[StepState], timeout: float | None, metadata: Mapping[str, str]) -> Outcome:
    """What Done says. ``steps``: what is known of them, in their order; ``timeout``: the lease's, None if not known.

    Our agent says the result itself. A stock one ends a workflow that ran out of time exactly as a cancelled one, which only
    its duration tells apart; and it may call a failed step a workflow error.
    """
    if calls.RESULT_KEY in metadata:
        return _stated(state, metadata)
    if state.canceled:
        if timeout is not None and state.finished - state.started >= timeout:
            return Outcome(result=Result.TIMEOUT, error=state.error or f"the build took longer than {timeout:g} s")
        return Outcome(result=Result.CANCELLED, error=state.error)
    failed = next((step for step in steps if step.status is StepStatus.FAILURE), None)
    if failed is not None and failed.exit_code:
        return Outcome(result=Result.FAILURE, exit_code=failed.exit_code, error=failed.error or state.error)
    if failed is not None:
        return Outcome(result=Result.EXCEPTION, error=failed.error or f"step {failed.name} could not be started")
    if state.error:
        return Outcome(result=Result.EXCEPTION, error=state.error)
    return Outcome(result=Result.SUCCESS, exit_code=0)


def _stated(state: pb.WorkflowState, metadata: Mapping[str, str]) -> Outcome:
    stated = metadata[calls.RESULT_KEY]
    code = metadata.get(calls.EXIT_CODE_KEY)
    try:
        return Outcome(result=Result(stated), exit_code=None if code is None else int(code), error=state.error)
    except ValueError:
        raise ProtocolError(f"{calls.RESULT_KEY} {stated[:40]!r} with {calls.EXIT_CODE_KEY} {code!r:.40} is no result") from None
