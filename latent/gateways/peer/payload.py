"""A lease as the workflow that an agent gets (specs/peer.md, "Payload").

Everything a stock agent needs is in Woodpecker's own fields. What they have no room for is in objects named ``latent``,
which a stock agent does not look at::

    {"pipeline": [{"steps": [{..., "latent": {"command": "make" or ["make"], "env": {}, "workdir": null, "timeout": 1200.0,
                                              "max_time": null, "always_run": false}}]}],
     "latent": {"run_id": 1, "build_id": 1, "builder": "name", "worker": "name", "attempt": 1, "timeout": 3600.0}, ...}

Steps of one stage run side by side in a stock agent, so each step is a stage of its own.
"""

from __future__ import annotations

import json
import math
import shlex

from latent.gateways.environment import environment_of
from latent.model import JSON, Lease, Step
from latent.wire import peer_pb2 as pb

MINUTES_LIMIT = 1_000_000
"""More would overflow an agent's nanoseconds."""


def workflow(lease: Lease, attempt: int | None) -> pb.Workflow:
    """What Next answers."""
    minutes = min(MINUTES_LIMIT, max(1, math.ceil(lease.timeout / 60)))
    return pb.Workflow(id=str(lease.run_id), timeout=minutes, payload=json.dumps(_document(lease, attempt)).encode())


def _document(lease: Lease, attempt: int | None) -> JSON:
    about = {
        "run_id": lease.run_id,
        "build_id": lease.build_id,
        "builder": lease.builder,
        "worker": lease.worker,
        "attempt": attempt,
        "timeout": lease.timeout,
    }
    environment = environment_of(lease, attempt)
    stages = [{"steps": [_step(uuid, step, environment)]} for uuid, step in lease.steps]
    return {"pipeline": stages, "network": "", "volume": "", "secrets": [], "latent": about}


def _step(uuid: str, step: Step, environment: dict[str, str]) -> JSON:
    return {
        "name": step.name,
        "uuid": uuid,
        "type": "commands",
        "image": "bash",
        "environment": {**environment, "CI_STEP_NAME": step.name, **step.env},
        "commands": _commands(step),
        "on_success": True,
        "on_failure": step.always_run,
        "failure": "fail",
        "latent": {
            "command": step.command if isinstance(step.command, str) else list(step.command),
            "env": dict(step.env),
            "workdir": step.workdir,
            "timeout": step.timeout,
            "max_time": step.max_time,
            "always_run": step.always_run,
        },
    }


def _commands(step: Step) -> list[str]:
    """The step for a stock agent's shell, which knows no argument vectors and no working directory."""
    command = step.command if isinstance(step.command, str) else shlex.join(step.command)
    if step.workdir is None:
        return [command]
    folder = shlex.quote(step.workdir)
    return [f"mkdir -p -- {folder}", f"cd -- {folder}", command]
