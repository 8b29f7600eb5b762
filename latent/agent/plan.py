"""The workflow that Next answers, as what is to be run. The form is described in `latent/gateways/peer/payload.py`."""

from __future__ import annotations

import json
from typing import Any

from attrs import field, frozen

from latent.errors import ProtocolError
from latent.model import Step
from latent.wire import peer_pb2 as pb


@frozen(kw_only=True)
class PlannedStep:
    """A step, the uuid it is reported by, and what the controller puts in its environment."""

    uuid: str
    step: Step
    env: dict[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Plan:
    """``timeout``: seconds for all steps together."""

    run_id: str
    build_id: str
    timeout: float
    steps: tuple[PlannedStep, ...]


def plan_of(workflow: pb.Workflow) -> Plan:
    """Raises ProtocolError when the payload is not what a latent controller sends."""
    try:
        payload = json.loads(workflow.payload)
        about = payload["latent"]
        steps = tuple(_step(step) for stage in payload["pipeline"] for step in stage["steps"])
        return Plan(run_id=workflow.id, build_id=str(about["build_id"]), timeout=float(about["timeout"]), steps=steps)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProtocolError(f"the payload of run {workflow.id} is not a latent build: {error!r}") from None


def _step(document: dict[str, Any]) -> PlannedStep:
    about = document["latent"]
    command = about["command"]
    step = Step(
        name=str(document["name"]),
        command=command if isinstance(command, str) else tuple(str(word) for word in command),
        env={str(name): str(value) for name, value in about["env"].items()},
        workdir=about["workdir"],
        timeout=_seconds(about["timeout"]),
        max_time=_seconds(about["max_time"]),
        always_run=bool(about["always_run"]),
    )
    if not step.command:
        raise ValueError(f"step {step.name!r} has no command")
    return PlannedStep(uuid=str(document["uuid"]), step=step, env=document["environment"])


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
