"""What happened to each latent machine, and the state that it left it in: in the tables of the workers, under a name of its own.

No worker's name has a slash, so ``machine/NAME`` is nobody else's. Times are POSIX seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from latent.core.machines import NAMES, Call, Due, MachinePolicy, MachineState, Started, Starting, Stopped, Stopping
from latent.errors import StoreCorrupt
from latent.model import JSON
from latent.store import journal

PREFIX = "machine/"


def journal_name(machine: str) -> str:
    """What the machine is called in the journal."""
    return f"{PREFIX}{machine}"


def record(conn: Connection, machine: str, at: float, event: str, detail: JSON, state: MachineState) -> None:
    """Append an event to the journal and keep the state that it led to."""
    journal.record(conn, journal_name(machine), at, event, detail, dump(state))


def load_all(conn: Connection) -> tuple[dict[str, JSON], dict[str, str]]:
    """The last state of each machine as a document and, apart, why some can't be read."""
    states, errors = journal.load(conn)
    return _ours(states), _ours(errors)


def _ours(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(PREFIX): value for name, value in rows.items() if name.startswith(PREFIX)}


def dump(state: MachineState) -> JSON:
    """The state as an object, without its policy: that comes from the declaration."""
    document: dict[str, JSON] = {"state": NAMES[type(state)], "attempt": state.attempt, "hung": state.hung}
    match state:
        case Stopped():
            more: dict[str, JSON] = {"error": state.error, "tries": state.tries, "retry_deadline": state.retry_deadline}
            more["closed"] = state.closed
        case Starting():
            more = {"call": _call(state.call), "closing": state.closing}
        case Started():
            more = {"idle_deadline": state.idle_deadline}
        case Stopping():
            more = {"call": _call(state.call), "tries": state.tries, "again": state.again, "closing": state.closing}
    return document | more


def load(document: JSON, policy: MachinePolicy) -> MachineState:
    """What `dump` wrote, with this policy. Raises StoreCorrupt."""
    try:
        return _load(document, policy)
    except KeyError as error:
        raise StoreCorrupt(f"a machine's state has no {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreCorrupt(f"a machine's state is damaged: {error}") from error


def _load(document: Any, policy: MachinePolicy) -> MachineState:
    attempt, hung = _exactly(int, document["attempt"]), _exactly(int, document["hung"])
    match document["state"]:
        case "STOPPED":
            return Stopped(
                policy=policy,
                attempt=attempt,
                hung=hung,
                error=_exactly(str, document["error"]),
                tries=_exactly(int, document["tries"]),
                retry_deadline=_time(document["retry_deadline"]),
                closed=_exactly(bool, document["closed"]),
            )
        case "STARTING":
            call = _read_call(document["call"])
            if call is None:
                raise ValueError("it is starting without a call")
            return Starting(policy=policy, attempt=attempt, hung=hung, call=call, closing=_exactly(bool, document["closing"]))
        case "STARTED":
            return Started(policy=policy, attempt=attempt, hung=hung, idle_deadline=_time(document["idle_deadline"]))
        case "STOPPING":
            return Stopping(
                policy=policy,
                attempt=attempt,
                hung=hung,
                call=_read_call(document["call"]),
                tries=_exactly(int, document["tries"]),
                again=_exactly(bool, document["again"]),
                closing=_exactly(bool, document["closing"]),
            )
        case other:
            raise ValueError(f"{other!r} is no state; it is one of {', '.join(NAMES.values())}")


def _call(call: Call | None) -> JSON:
    return None if call is None else {"hook": call.hook.value, "deadline": call.deadline, "cancelled": call.cancelled}


def _read_call(document: Any) -> Call | None:
    if document is None:
        return None
    deadline = _time(document["deadline"])
    if deadline is None:
        raise ValueError("a call has no deadline")
    return Call(Due(document["hook"]), deadline, _exactly(bool, document["cancelled"]))


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} should be of type {kind.__name__}")
    return value


def _time(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} should be a time")
    return float(value)
