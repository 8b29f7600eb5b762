"""The API's documents: each of the controller's values as JSON. Times are POSIX seconds, durations seconds."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from attrs import asdict

from latent.model import JSON, Build, LogLine, Payload, Step, StepState
from latent.store.runs import to_document
from latent.web.facade import (
    BuildView,
    DispatchView,
    FoundView,
    HealthView,
    JournalView,
    MachineView,
    RunView,
    ScanView,
    TaskView,
    WorkerView,
)


def build(value: Build) -> dict[str, JSON]:
    """A build and what was asked for."""
    request = value.request
    workers = request.requirements.workers
    return {
        "id": value.id,
        "builder": request.builder,
        "state": value.state.value,
        "result": value.result.value if value.result else None,
        "reason": value.reason,
        "attempts": value.attempts,
        "max_attempts": request.max_attempts,
        "priority": request.priority,
        "timeout": request.timeout,
        "labels": dict(request.requirements.labels),
        "workers": None if workers is None else sorted(workers),
        "properties": dict(request.properties),
        "steps": [step(each) for each in request.steps],
        "payload": None if request.payload is None else payload(request.payload),
        "dispatch": None if request.dispatch is None else asdict(request.dispatch),
        "submitted_at": value.submitted_at,
        "started_at": value.started_at,
        "ended_at": value.ended_at,
        "cancel_requested": value.cancel_requested,
    }


def dispatch(value: DispatchView) -> dict[str, JSON]:
    """What became of a dispatch. The run is a public record, its times in RFC 3339."""
    return {
        "outcome": value.outcome.value,
        "build": None if value.build is None else build(value.build),
        "run": None if value.run is None else to_document(value.run),
    }


def step(value: Step) -> dict[str, JSON]:
    """A step as it was asked for. Its environment may hold secrets and stays out."""
    command = value.command if isinstance(value.command, str) else list(value.command)
    return {"name": value.name, "command": command, "workdir": value.workdir, "always_run": value.always_run}


def payload(value: Payload) -> dict[str, JSON]:
    """What a bot is given, by type and size in bytes."""
    return {"type_url": value.type_url, "size": len(value.value)}


def answer(run_id: int, value: Payload) -> dict[str, JSON]:
    """What a bot answered, its bytes in base64."""
    return {"run": run_id, "type_url": value.type_url, "value": base64.b64encode(value.value).decode()}


def details(value: BuildView) -> dict[str, JSON]:
    """A build, its runs (oldest first) and why it is where it is."""
    return {**build(value.build), "why": value.why, "runs": [run(each) for each in value.runs]}


def task(value: TaskView) -> dict[str, JSON]:
    """Which attempt of which task of a workflow a build is."""
    return {
        "workflow_id": value.workflow_id,
        "workflow": value.workflow,
        "id": value.task_id,
        "name": value.task,
        "attempt": value.attempt,
    }


def run(value: RunView) -> dict[str, JSON]:
    """One try of a build."""
    record = value.run
    return {
        "id": int(record.id),
        "worker": value.worker,
        "attempt": value.attempt,
        "machine": record.machine,
        "status": record.status.value,
        "exit_code": record.exit_code,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "error_code": record.error_code,
        "error_msg": record.error_msg,
        "logs_path": record.logs_path,
        "steps": [step_state(each) for each in value.steps],
    }


def step_state(value: StepState) -> dict[str, JSON]:
    """What became of a step."""
    return {
        "uuid": value.uuid,
        "name": value.name,
        "status": value.status.value,
        "started_at": value.started_at,
        "ended_at": value.ended_at,
        "exit_code": value.exit_code,
        "error": value.error,
    }


def worker(value: WorkerView) -> dict[str, JSON]:
    """A worker as it is now."""
    return {
        "name": value.name,
        "kind": value.kind,
        "latent": value.latent,
        "state": value.state,
        "attempt": value.attempt,
        "since": value.since,
        "builds": list(value.builds),
        "session": None if value.session is None else dict(value.session),
        "quarantined_until": value.quarantined_until,
        "paused": value.paused,
        "reason": value.reason,
        "labels": {name: sorted(values) for name, values in value.labels.items()},
        "machine": value.machine,
    }


def machine(value: MachineView) -> dict[str, JSON]:
    """A latent machine as it is now."""
    return {
        "name": value.name,
        "kind": value.kind,
        "state": value.state,
        "since": value.since,
        "starts": value.starts,
        "workers": list(value.workers),
        "error": value.error,
        "retry_at": value.retry_at,
        "idle_until": value.idle_until,
    }


def health(items: Sequence[HealthView]) -> dict[str, JSON]:
    """Everything that was looked at, and whether all of it is well."""
    return {
        "healthy": all(item.ok for item in items),
        "items": [{"subject": i.subject, "ok": i.ok, "message": i.message, "remedy": i.remedy} for i in items],
    }


def leaks(value: ScanView) -> dict[str, JSON]:
    """What a scan of the providers saw. The instances' handles stay with the controller."""
    return {
        "at": value.at,
        "controller": value.controller_id,
        "instances": [_instance(found) for found in value.found],
        "unlisted": [{"where": where, "error": error} for where, error in value.unlisted.items()],
        "blind": list(value.blind),
    }


def _instance(found: FoundView) -> dict[str, JSON]:
    instance = found.instance
    return {
        "worker": instance.attempt.worker,
        "attempt": instance.attempt.number,
        "controller": instance.controller_id,
        "title": instance.title,
        "where": found.scope,
        "standing": "gone" if found.gone else found.verdict.standing.value,
        "why": found.verdict.why,
        "certain_at": found.verdict.certain_at,
        "created_at": instance.created_at,
        "expires_at": instance.expires_at,
        "protected": instance.protected,
    }


def journal_entry(value: JournalView) -> dict[str, JSON]:
    """One transition of a worker. ``state`` names the state that it led to."""
    return {
        "seq": value.seq,
        "at": value.at,
        "worker": value.worker,
        "attempt": value.attempt,
        "event": value.event,
        "detail": value.detail,
        "state": value.state_name,
    }


def log_line(run_id: int, value: LogLine) -> dict[str, JSON]:
    """One line of output. ``time``: seconds since its step started."""
    return {
        "run": run_id,
        "step": value.step_uuid,
        "line": value.line,
        "time": value.time,
        "stream": value.stream,
        "text": value.text,
    }
