"""Documents of the API in words for people: times, durations, states."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import Any

Doc = dict[str, Any]

STYLES = {
    "success": "green",
    "completed": "green",
    "SUBSTANTIATED": "green",
    "ATTACHED": "green",
    "failure": "red",
    "failed": "red",
    "exception": "magenta",
    "interrupted": "magenta",
    "timeout": "yellow",
    "killed": "yellow",
    "cancelled": "yellow",
    "running": "cyan",
    "starting": "cyan",
    "SUBSTANTIATING": "cyan",
    "SUBSTANTIATING_STARTING": "cyan",
    "INSUBSTANTIATING": "blue",
    "INSUBSTANTIATING_SUBSTANTIATING": "blue",
    "NOT_SUBSTANTIATED": "dim",
    "SHUT_DOWN": "dim",
    "STARTING": "cyan",
    "STARTED": "green",
    "STOPPING": "blue",
    "STOPPED": "dim",
    "DETACHED": "yellow",
    "skipped": "dim",
}
"""The colour of a state, result or status."""


def state(build: Doc) -> str:
    """The result of a finished build, the state of any other."""
    return str(build["result"] or build["state"])


def what(build: Doc) -> str:
    """What a build does: its builder, or the command that it was submitted as."""
    if build["builder"] == "command" and build["steps"]:
        return f"-- {build['steps'][0]['name']}"
    if build["builder"] == "dispatch" and build["dispatch"]:
        return f"dispatch of {build['dispatch']['test_dir']}"
    if build["builder"] == "payload" and build["payload"]:
        return f"payload {build['payload']['type_url'].rpartition('/')[2]}"
    return str(build["builder"])


def payload(doc: Doc | None) -> str:
    """A payload by its type and size; empty if there is none."""
    return "" if doc is None else f"{doc['type_url']} ({count(doc['size'], 'byte')})"


def dispatch(doc: Doc | None) -> str:
    """A dispatch by its machine and directory; empty if there is none."""
    return "" if doc is None else f"{doc['test_dir']} to {doc['machine']}"


def task(doc: Doc | None) -> str:
    """Which attempt of which task of a workflow a build is; empty if it is none."""
    if doc is None:
        return ""
    return f"attempt {doc['attempt']} at task {doc['name']} of workflow {doc['workflow_id']}, {doc['workflow']}"


def command(step: Doc) -> str:
    """A step's command as one would type it."""
    return step["command"] if isinstance(step["command"], str) else shlex.join(step["command"])


def duration(seconds: float, *, whole: bool = False) -> str:
    """Two units at most: ``0.4s`` (``0s`` if ``whole``), ``12s``, ``3m 05s``, ``2h 10m``, ``5d 3h``."""
    seconds = max(0.0, seconds)
    if seconds < 9.95 and not whole:
        return f"{seconds:.1f}s"
    total = round(seconds)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 60:
        return f"{total}s"
    if minutes < 60:
        return f"{minutes}m {total % 60:02}s"
    if hours < 48:
        return f"{hours}h {minutes % 60:02}m"
    return f"{days}d {hours % 24}h"


def ago(at: float | None, now: float) -> str:
    """How long ago, in whole seconds; empty for a time that has not come."""
    return "" if at is None else f"{duration(now - at, whole=True)} ago"


def took(start: float | None, end: float | None, now: float) -> str:
    """How long it took, or has taken so far."""
    return "" if start is None else duration((now if end is None else end) - start)


def moment(at: float | None) -> str:
    """Local date and time, to the second."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def pairs(values: Doc | None) -> str:
    """``name=value`` for each, values that are not plain text as JSON."""
    if not values:
        return ""
    return " ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items())


def count(number: int, noun: str) -> str:
    """``1 build``, ``2 builds``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
