"""The house's values as a stock agent knows them, and back. Pure."""

from __future__ import annotations

import ntpath
import posixpath
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from latent.errors import ProtocolError
from latent.gateways.environment import environment_of
from latent.model import JSON, Lease, Outcome, Result, Step

ORPHAN_GRACE = 300.0
"""Seconds beyond its build's limit after which an agent ends a step by itself, if nobody has told it to."""

CANNOT_RUN = 126
"""Exit code of a step that could not be started, as a shell has it."""

KILLED = -1
"""The exit code that an agent reports of whatever a signal ended."""

SECRETS = ("WORKERPASS", "LATENT_TOKEN", "LATENT_SERVER", "WOODPECKER_AGENT_SECRET")
"""Variables of the agent's that its steps do not get."""

_SHELL = 'if command -v bash >/dev/null 2>&1; then exec bash -e -c "$0"; else exec /bin/sh -e -c "$0"; fi'

_DESCRIBED = ("version", "system", "numcpus", "basedir", "admin", "host")
"""What is kept of what an agent says of itself, with all that begins with os_. The rest has its environment, secrets and all."""

_TEXT_LIMIT = 1000


@frozen(kw_only=True)
class Place:
    """An agent's file system. ``basedir``: its own directory."""

    basedir: str
    windows: bool = False

    def folder(self, slot: int) -> str:
        """Where the steps of a slot's builds run; empty before each build."""
        return self.join(self.basedir, slot_name(slot), "build")

    def join(self, *parts: str) -> str:
        return ntpath.join(*parts) if self.windows else posixpath.join(*parts)


def slot_name(slot: int) -> str:
    """The builder that stands for a slot; an agent runs one command for each builder at a time."""
    return f"latent-{slot}"


def command_id(session_id: int, slot: int) -> str:
    """What the commands of a slot are called, one after the other; those of sessions before this one can be told by it."""
    return f"{session_id}.{slot}"


def place(description: Mapping[str, Any]) -> Place:
    """Raises ProtocolError when the agent does not say where it is."""
    basedir = description.get("basedir")
    if not isinstance(basedir, str) or not basedir:
        raise ProtocolError("the agent does not say what its basedir is")
    return Place(basedir=basedir, windows=description.get("system") == "nt")


def info(description: Mapping[str, Any], protocol: str, address: str) -> dict[str, JSON]:
    """What people are shown of an agent."""
    kept: dict[str, JSON] = {"agent": "buildbot-worker", "protocol": protocol, "address": address}
    for name, value in description.items():
        if (name in _DESCRIBED or name.startswith("os_")) and isinstance(value, str | int):
            kept[name] = value[:_TEXT_LIMIT] if isinstance(value, str) else value
    return kept


def shell(step: Step, lease: Lease, attempt: int | None, where: Place, slot: int) -> dict[str, Any]:
    """The arguments of the command that carries a step out."""
    folder = where.folder(slot)
    return {
        "command": _command(step.command, where),
        "workdir": where.join(folder, step.workdir) if step.workdir else folder,
        "env": _environment(step, lease, attempt, folder),
        "timeout": step.timeout,
        # An agent that has lost its connection for good shall not go on for ever.
        "maxTime": lease.timeout + ORPHAN_GRACE if step.max_time is None else step.max_time,
        "usePTY": False,
        "logEnviron": False,
        "want_stdout": True,
        "want_stderr": True,
        "logfiles": {},
    }


def _command(command: str | tuple[str, ...], where: Place) -> str | list[str]:
    """A command line goes to bash, or to sh where there is none, and ends at its first failing command, as our agent has it."""
    if not isinstance(command, str):
        return list(command)
    return command if where.windows else ["/bin/sh", "-c", _SHELL, command]


def _environment(step: Step, lease: Lease, attempt: int | None, folder: str) -> dict[str, str | None]:
    """What the step finds beside the agent's own environment. None: it does not find that."""
    env = {**environment_of(lease, attempt), "CI_STEP_NAME": step.name, **step.env, "CI_WORKSPACE": folder}
    # A stock agent puts its own variables in place of ${...} in a value, and nothing in place of ${}.
    return dict.fromkeys(SECRETS) | {name: value.replace("${", "$${}{") for name, value in env.items()}


@frozen(kw_only=True)
class Ended:
    """How a step ended. ``timed_out``: by its own limits. ``stopped``: because its run was ended."""

    exit_code: int | None
    error: str = ""
    timed_out: bool = False
    stopped: bool = False

    @property
    def good(self) -> bool:
        return self.exit_code == 0 and not self.error and not self.timed_out and not self.stopped


def ended(step: Step, rc: int | None, reason: str, error: str, killed_by: str, stopped: str) -> Ended:
    """``rc``: None if none came; ``reason``: the agent's failure_reason; ``error``: why it could not carry the command out;
    ``killed_by``: the number of a signal; ``stopped``: why we ended it. Each is "" if there was none."""
    if stopped:
        return Ended(exit_code=rc, error=stopped, stopped=True)
    match reason:
        case "timeout_without_output":
            return Ended(exit_code=rc, error=f"no output for {step.timeout or 0:g} s", timed_out=True)
        case "timeout":
            limit = "its build may" if step.max_time is None else f"{step.max_time:g} s"
            return Ended(exit_code=rc, error=f"took longer than {limit}", timed_out=True)
    if error:
        return Ended(exit_code=CANNOT_RUN if rc is None else rc, error=f"can't be carried out: {error}")
    if rc is None:
        return Ended(exit_code=CANNOT_RUN, error="the agent did not say how it ended")
    if rc == KILLED and killed_by:
        return Ended(exit_code=rc, error=f"killed by signal {killed_by}")
    return Ended(exit_code=rc, error=reason if rc else "")


def outcome(bad: tuple[Step, Ended] | None, stopped: str) -> Outcome:
    """``bad``: the first step that did not end well. ``stopped``: why we ended the run, "" if we did not."""
    if stopped:
        return Outcome(result=Result.CANCELLED, exit_code=bad[1].exit_code if bad else 0, error=stopped)
    if bad is None:
        return Outcome(result=Result.SUCCESS, exit_code=0)
    step, how = bad
    error = f"step {step.name}: {how.error or f'exit code {how.exit_code}'}"
    return Outcome(result=Result.TIMEOUT if how.timed_out else Result.FAILURE, exit_code=how.exit_code, error=error)
