"""What a worker's events leave in the journal: one row each, and what an attempt's row has to say with it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from sqlalchemy import Connection

from latent.controller.identity import Identity, token_hash
from latent.core import events as ev
from latent.core.states import (
    Insubstantiating,
    InsubstantiatingSubstantiating,
    State,
    Substantiated,
    SubstantiatingStarting,
    Timer,
)
from latent.model import JSON, Attempt
from latent.store import attempts, journal
from latent.store.states import dump


@attrs.frozen
class Entry:
    """A step that a worker took. Called with a connection, it writes it down; ``also`` is written in the same transaction."""

    worker: str
    at: float
    event: ev.Event
    before: State
    after: State
    actions: tuple[ev.Action, ...]
    identity: Identity
    also: Callable[[Connection], object] | None = None

    def __call__(self, conn: Connection) -> None:
        journal.record(conn, self.worker, self.at, type(self.event).__name__, describe(self.event), dump(self.after))
        condemned = False
        for action in self.actions:
            if isinstance(action, ev.StartInstance) and not action.again:
                attempt = Attempt(self.worker, action.attempt)
                attempts.begin(conn, attempt, token_hash(self.identity.agent_token(attempt)), self.at)
            elif isinstance(action, ev.Condemn):
                condemned = True
                attempts.condemn(conn, Attempt(self.worker, action.attempt), action.reason, self.at)
        if not condemned and (stopped := _stop_confirmed(self.event, self.before)) is not None:
            attempts.stopped(conn, Attempt(self.worker, stopped), self.at)
        if self.also is not None:
            self.also(conn)

    @property
    def is_noise(self) -> bool:
        """Whether nothing but the next check changed: checks come every few seconds and would bury the journal."""
        before, after = self.before, self.after
        if self.also is not None or any(not isinstance(action, ev.CheckInstance) for action in self.actions):
            return False
        if before is after:
            return True
        if isinstance(before, SubstantiatingStarting) and isinstance(after, SubstantiatingStarting):
            return attrs.evolve(before, check_deadline=None) == attrs.evolve(after, check_deadline=None)
        if isinstance(before, Substantiated) and isinstance(after, Substantiated):
            return attrs.evolve(before, check_deadline=None) == attrs.evolve(after, check_deadline=None)
        return False


def keep_handle(attempt: Attempt, handle: JSON, conn: Connection) -> None:
    attempts.set_handle(conn, attempt, handle)


def _stop_confirmed(event: ev.Event, before: State) -> int | None:
    """The attempt of which this event says that nothing is left."""
    match event, before:
        case ev.Stopped(attempt), _:
            return attempt
        case ev.Recovered(False), Insubstantiating(call=call) | InsubstantiatingSubstantiating(call=call):
            return before.attempt if call.hook is Timer.STOP else None
        case _:
            return None


def describe(event: ev.Event) -> JSON:
    """An event's fields as JSON, for the journal. What the machine calls a build is a run of it, by its id."""
    doc: dict[str, JSON] = {}
    for field in attrs.fields(type(event)):
        value = getattr(event, field.name)
        if field.name == "build":
            doc["run"] = value
            continue
        match value:
            case ev.Failure():
                doc[field.name] = value.message
                doc["fault"] = value.fault.value
                doc["kind"] = value.kind
            case Timer():
                doc[field.name] = value.value
            case None | bool() | int() | float() | str():
                doc[field.name] = value
            case _:
                # A policy is the declaration's and stands there.
                continue
    return doc
