"""The public record of runs (specs/runs.md), kept in table runs. Its times are POSIX seconds here, RFC 3339 in the JSON.

At most one run that is not over a machine: `prepare` looks and creates in one transaction, and an index enforces it, also
between processes. Besides the record a row has private columns; `latent.store.builds` writes those of the controller's runs.
"""

# ruff: noqa: S608 -- what is put into the statements here are constants of this package
from __future__ import annotations

import enum
import json
from collections.abc import Callable

from attrs import frozen
from sqlalchemy import Connection, Engine

from latent.errors import RunNotFound, StoreCorrupt, StoreError
from latent.model import LeaseState, Run, RunStatus
from latent.store.codec import time_from_json, time_to_json
from latent.store.engine import open_engines
from latent.store.failures import explained
from latent.store.migrations import upgrade
from latent.store.schema import LIVE_RUN
from latent.store.sql import Row, Statement, clean

Runs = list[Run]

OTHERS_PATIENCE = 30.0
"""How long a process that is not the controller waits for the database's lock, in seconds."""


class PrepareOutcome(enum.Enum):
    """CREATED: the run is new. REUSE: it was there, for the same hash. BUSY: it is another's, and occupies the machine."""

    CREATED = "created"
    REUSE = "reuse"
    BUSY = "busy"


class MachineBusy(StoreError):
    """The machine has a run that is not over: ``occupant``."""

    def __init__(self, occupant: Run) -> None:
        super().__init__(
            f"machine {occupant.machine} is busy with run {occupant.id} ({occupant.status.value}"
            f"{f', {occupant.test_dir}' if occupant.test_dir else ''}); wait until it is over"
        )
        self.occupant = occupant


@frozen(kw_only=True)
class Private:
    """The columns of a run that are not in the public record. ``owner``: who carries it out, for `RunStore.reconcile`."""

    build_id: int | None = None
    worker: str | None = None
    attempt: int | None = None
    owner: str | None = None
    deadline: float | None = None
    lease: LeaseState | None = None


_NOTHING_PRIVATE = Private()

_PUBLIC = (
    "machine, test_dir, test_dir_hash, status, exit_code, started_at, ended_at,"
    " artifacts_path, logs_path, error_code, error_msg, batch_id, plan_entry"
)
RECORD = f"id, {_PUBLIC}"
"""The columns that `from_row` takes."""
_PUBLIC_NAMES = _PUBLIC.replace(" ", "").split(",")

_INSERT = Statement(
    f"INSERT INTO runs ({_PUBLIC}, build_id, worker, attempt, owner, deadline, lease_state) VALUES"
    f" ({', '.join(f':{name}' for name in _PUBLIC_NAMES)}, :build_id, :worker, :attempt, :owner, :deadline, :lease_state)"
    " RETURNING id"
)
_UPDATE = Statement(f"UPDATE runs SET {', '.join(f'{name} = :{name}' for name in _PUBLIC_NAMES)} WHERE id = :id")
_GET = Statement(f"SELECT {RECORD} FROM runs WHERE id = :id")
_LIST = Statement(f"SELECT {RECORD} FROM runs ORDER BY id")
_LIVE_ON = Statement(f"SELECT {RECORD} FROM runs WHERE machine = :machine AND {LIVE_RUN}")
_BY_HASH = Statement(f"SELECT {RECORD} FROM runs WHERE test_dir_hash = :hash AND machine = :machine ORDER BY id")
# The plus sign makes SQLite take an index of the live ones, not all runs there ever were.
_OWNED = Statement(
    f"SELECT id, owner, deadline FROM runs WHERE {LIVE_RUN} AND (owner IS NOT NULL OR deadline IS NOT NULL) ORDER BY +id"
)
_BREAK_OFF = Statement(
    "UPDATE runs SET status = :status, ended_at = :at, error_code = :error_code, error_msg = :error_msg"
    f" WHERE id = :id AND {LIVE_RUN} RETURNING {RECORD}"
)
# Others wait here for the end of this transaction, and then see what it did.
_LOCK_MACHINE = Statement("SELECT pg_advisory_xact_lock(hashtextextended(:machine, 0))")


def prepare(
    conn: Connection, machine: str, hash: str, mk: Callable[[], Run], private: Private = _NOTHING_PRIVATE
) -> tuple[Run, PrepareOutcome]:
    """The machine's run for this hash: the one that is not over or, where the machine is free, what ``mk`` makes, stored.

    ``mk`` is called once, and only to create; the id of what it makes is overwritten. What it raises goes through.
    """
    _lock(conn, machine)
    live = _LIVE_ON.one(conn, machine)
    if live is not None:
        run = from_row(live)
        return run, PrepareOutcome.REUSE if run.test_dir_hash == hash else PrepareOutcome.BUSY
    return _insert(conn, mk(), private), PrepareOutcome.CREATED


class RunStore:
    """The runs in an SQL database. Safe between threads and between processes; every method is a transaction and blocks.

    All raise `StoreError` when the database can't be used.
    """

    def __init__(self, engine: Engine, place: str = "") -> None:
        self._engine = engine
        self._place = place or f"database {engine.url.render_as_string(hide_password=True)}"

    @classmethod
    def open(cls, url: str) -> RunStore:
        """The runs in the database at the URL, made where there is none. A controller may use it at the same time."""
        engines = open_engines(url, busy_timeout=OTHERS_PATIENCE)
        try:
            with explained(engines.place):
                upgrade(engines.write, engines.place)
        except BaseException:
            engines.dispose()
            raise
        return cls(engines.write, engines.place)

    def close(self) -> None:
        self._engine.dispose()

    def create(self, run: Run, *, owner: str | None = None, deadline: float | None = None) -> Run:
        """Store the run under a new id and return it with that. Raises MachineBusy where it would be the second live one."""
        with explained(self._place), self._engine.begin() as conn:
            _check_free(conn, run, None)
            return _insert(conn, run, Private(owner=owner, deadline=deadline))

    def get(self, id: str) -> Run:
        """Raises RunNotFound."""
        with explained(self._place), self._engine.begin() as conn:
            row = _GET.one(conn, _number(id))
        if row is None:
            raise _not_found(id)
        return from_row(row)

    def update(self, run: Run) -> None:
        """Replace the whole record. Raises RunNotFound and, where a second one would be live on the machine, MachineBusy."""
        with explained(self._place), self._engine.begin() as conn:
            number = _number(run.id)
            _check_free(conn, run, run.id)
            if not _UPDATE(conn, *_public(run), number).rowcount:
                raise _not_found(run.id)

    def list(self) -> Runs:
        """All, in the order of their creation."""
        with explained(self._place), self._engine.begin() as conn:
            return [from_row(row) for row in _LIST.all(conn)]

    def active_by_machine(self, name: str) -> Run | None:
        """The run on this machine that is not over."""
        with explained(self._place), self._engine.begin() as conn:
            row = _LIVE_ON.one(conn, name)
        return None if row is None else from_row(row)

    def find_by_test_dir_hash_and_machine(self, hash: str, machine: str) -> Runs:
        """All that match, also those that are over, in the order of their creation."""
        with explained(self._place), self._engine.begin() as conn:
            return [from_row(row) for row in _BY_HASH.all(conn, hash, machine)]

    def prepare_atomic(
        self,
        machine: str,
        hash: str,
        mk: Callable[[], Run],
        *,
        owner: str | None = None,
        deadline: float | None = None,
    ) -> tuple[Run, PrepareOutcome]:
        """`prepare` in a transaction of its own. ``owner`` and ``deadline`` (POSIX seconds) are for `reconcile`."""
        with explained(self._place), self._engine.begin() as conn:
            return prepare(conn, machine, hash, mk, Private(owner=owner, deadline=deadline))

    def reconcile(self, now: float, alive: Callable[[str], bool]) -> Runs:
        """End the runs that nobody carries out: interrupted where the owner is not alive, timeout where one is overdue.

        Returns them as they are now. Runs of a controller's builds have neither owner nor deadline and are left alone.
        """
        with explained(self._place), self._engine.begin() as conn:
            owned = _OWNED.all(conn)
        # Asked outside of a transaction: it may take its time.
        dead = {owner for owner in {owner for _, owner, _ in owned} if owner is not None and not alive(owner)}
        ended = []
        with explained(self._place), self._engine.begin() as conn:
            for id, owner, deadline in owned:
                if owner in dead:
                    end = (RunStatus.INTERRUPTED, "owner_gone", f"its owner {owner} is gone")
                elif deadline is not None and deadline <= now:
                    end = (RunStatus.TIMEOUT, "timeout", f"it was not over at its deadline, {time_to_json(deadline)}")
                else:
                    continue
                status, error_code, error_msg = end
                row = _BREAK_OFF.one(conn, status.value, now, error_code, clean(error_msg), id)
                if row is not None:
                    ended.append(from_row(row))
        return ended


def to_json(run: Run) -> str:
    """The record as one line of JSON; the same record always gives the same bytes."""
    document = {
        "id": run.id,
        "machine": run.machine,
        "test_dir": run.test_dir,
        "test_dir_hash": run.test_dir_hash,
        "status": run.status.value,
        "exit_code": run.exit_code,
        "started_at": time_to_json(run.started_at),
        "ended_at": time_to_json(run.ended_at),
        "artifacts_path": run.artifacts_path,
        "logs_path": run.logs_path,
        "error_code": run.error_code,
        "error_msg": run.error_msg,
    }
    if run.batch_id:
        document["batch_id"] = run.batch_id
    if run.plan_entry:
        document["plan_entry"] = run.plan_entry
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Run:
    """Raises StoreCorrupt, with what is wrong. Fields that are not in the record are left out."""
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise TypeError("it should be an object")
        exit_code = document["exit_code"]
        if exit_code is not None and type(exit_code) is not int:
            raise TypeError(f"exit_code {exit_code!r} should be an integer or null")
        names = [name for name in ("id", *_PUBLIC_NAMES) if name not in _NOT_TEXT]
        texts = {name: document.get(name, "") if name in _MAY_LACK else document[name] for name in names}
        if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
            raise TypeError(f"{', '.join(wrong)} should be a string")
        return Run(
            **texts,
            status=RunStatus(document["status"]),
            exit_code=exit_code,
            started_at=time_from_json(document["started_at"]),
            ended_at=time_from_json(document["ended_at"]),
        )
    except KeyError as error:
        raise StoreCorrupt(f"the record of a run is damaged: it has no {error}") from error
    except (TypeError, ValueError) as error:
        raise StoreCorrupt(f"the record of a run is damaged: {error}") from error


_NOT_TEXT = {"status", "exit_code", "started_at", "ended_at"}
_MAY_LACK = {"batch_id", "plan_entry"}


def from_row(row: Row) -> Run:
    """A row of the columns `RECORD`."""
    return Run(
        id=str(row[0]),
        machine=row[1],
        test_dir=row[2],
        test_dir_hash=row[3],
        status=RunStatus(row[4]),
        exit_code=row[5],
        started_at=row[6],
        ended_at=row[7],
        artifacts_path=row[8],
        logs_path=row[9],
        error_code=row[10],
        error_msg=row[11],
        batch_id=row[12],
        plan_entry=row[13],
    )


def _public(run: Run) -> Row:
    return (
        clean(run.machine),
        clean(run.test_dir),
        run.test_dir_hash,
        run.status.value,
        run.exit_code,
        run.started_at,
        run.ended_at,
        clean(run.artifacts_path),
        clean(run.logs_path),
        clean(run.error_code),
        clean(run.error_msg),
        clean(run.batch_id),
        clean(run.plan_entry),
    )


def _insert(conn: Connection, run: Run, private: Private) -> Run:
    lease = None if private.lease is None else private.lease.value
    public = _public(run)
    row = _INSERT.one(conn, *public, private.build_id, private.worker, private.attempt, private.owner, private.deadline, lease)
    assert row is not None
    # Not attrs.evolve, which takes as long as the statement.
    return from_row((row[0], *public))


def _check_free(conn: Connection, run: Run, own_id: str | None) -> None:
    if run.status.is_terminal:
        return
    _lock(conn, run.machine)
    live = _LIVE_ON.one(conn, run.machine)
    if live is not None and str(live[0]) != own_id:
        raise MachineBusy(from_row(live))


def _lock(conn: Connection, machine: str) -> None:
    # SQLite's transactions that may write exclude each other anyway.
    if conn.dialect.name == "postgresql":
        _LOCK_MACHINE.one(conn, machine)


def _number(id: str) -> int:
    if id.isascii() and id.isdigit() and len(id) < 19 and str(int(id)) == id:
        return int(id)
    raise _not_found(id)


def _not_found(id: object) -> RunNotFound:
    return RunNotFound(f"there is no run {id}")
