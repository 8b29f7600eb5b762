"""The runs in an SQL database: table runs, which the controller's own runs are in, too. Times are POSIX seconds.

At most one run that is not over a machine: `prepare` looks and creates in one transaction, and an index enforces it, also
between processes. Besides the record a row has private columns; `latent.store.builds` writes those of the controller's runs.
"""

# ruff: noqa: S608 -- what is put into the statements here are constants of this package
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import frozen
from sqlalchemy import Connection, Engine, select

from latent.model import LeaseState, Run, RunStatus
from latent.store import schema
from latent.store.codec import clean
from latent.store.engine import open_engines
from latent.store.failures import explained
from latent.store.migrations import upgrade
from latent.store.runs import (
    MachineBusy,
    PrepareOutcome,
    Runs,
    adoptable,
    not_found,
    number_of,
    overdue,
    owner_gone,
    prepared,
    same,
    taken,
)
from latent.store.schema import LIVE_RUN
from latent.store.sql import Row, Statement

OTHERS_PATIENCE = 30.0
"""How long a process that is not the controller waits for the database's lock, in seconds."""


@frozen(kw_only=True)
class Private:
    """The columns of a run that are not in the public record. ``owner``: who carries it out, for `SqlRunStore.reconcile`."""

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
_INSERT_AS = Statement(
    f"INSERT INTO runs (id, {_PUBLIC}) VALUES (:id, {', '.join(f':{name}' for name in _PUBLIC_NAMES)}) ON CONFLICT DO NOTHING"
)
_LOCK_IDS = Statement("LOCK TABLE runs IN SHARE ROW EXCLUSIVE MODE")
_SKIP_IDS = Statement(
    "SELECT setval(pg_get_serial_sequence('runs', 'id'), GREATEST((SELECT MAX(id) FROM runs), nextval("
    "pg_get_serial_sequence('runs', 'id'))))"
)
_UPDATE = Statement(f"UPDATE runs SET {', '.join(f'{name} = :{name}' for name in _PUBLIC_NAMES)} WHERE id = :id")
_GET = Statement(f"SELECT {RECORD} FROM runs WHERE id = :id")
_LIST = Statement(f"SELECT {RECORD} FROM runs ORDER BY id")
_LIVE_ON = Statement(f"SELECT {RECORD} FROM runs WHERE machine = :machine AND {LIVE_RUN}")
_BY_HASH = Statement(f"SELECT {RECORD} FROM runs WHERE test_dir_hash = :hash AND machine = :machine ORDER BY id")
# The plus sign makes SQLite take an index of the live ones, not all runs there ever were.
_OWNED = Statement(
    f"SELECT {RECORD}, owner, deadline FROM runs WHERE {LIVE_RUN} AND (owner IS NOT NULL OR deadline IS NOT NULL) ORDER BY +id"
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

    See `latent.store.runs.RunStore.prepare_atomic`.
    """
    machine, hash = clean(machine), clean(hash)
    lock_machine(conn, machine)
    live = _LIVE_ON.one(conn, machine)
    if live is not None:
        run = from_row(live)
        return run, PrepareOutcome.REUSE if run.test_dir_hash == hash else PrepareOutcome.BUSY
    return _insert(conn, prepared(mk, machine, hash), private), PrepareOutcome.CREATED


class SqlRunStore:
    """The runs in an SQL database; every method is a transaction. See `latent.store.runs.RunStore`."""

    def __init__(self, engine: Engine, place: str = "") -> None:
        self._engine = engine
        self._place = place or f"database {engine.url.render_as_string(hide_password=True)}"

    @classmethod
    def open(cls, url: str) -> SqlRunStore:
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
        with explained(self._place), self._engine.begin() as conn:
            _check_free(conn, run, None)
            return _insert(conn, run, Private(owner=owner, deadline=deadline))

    def get(self, id: str) -> Run:
        with explained(self._place), self._engine.begin() as conn:
            return get(conn, id)

    def update(self, run: Run) -> None:
        with explained(self._place), self._engine.begin() as conn:
            number = number_of(run.id)
            _check_free(conn, run, run.id)
            if not _UPDATE(conn, *_public(run), number).rowcount:
                raise not_found(run.id)

    def list(self) -> Runs:
        with explained(self._place), self._engine.begin() as conn:
            return [from_row(row) for row in _LIST.all(conn)]

    def find(
        self,
        *,
        machine: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Runs:
        with explained(self._place), self._engine.begin() as conn:
            return find(conn, machine=machine, statuses=statuses, after=after, limit=limit)

    def active_by_machine(self, name: str) -> Run | None:
        with explained(self._place), self._engine.begin() as conn:
            row = _LIVE_ON.one(conn, clean(name))
        return None if row is None else from_row(row)

    def find_by_test_dir_hash_and_machine(self, hash: str, machine: str) -> Runs:
        with explained(self._place), self._engine.begin() as conn:
            return [from_row(row) for row in _BY_HASH.all(conn, clean(hash), clean(machine))]

    def prepare_atomic(
        self,
        machine: str,
        hash: str,
        mk: Callable[[], Run],
        *,
        owner: str | None = None,
        deadline: float | None = None,
    ) -> tuple[Run, PrepareOutcome]:
        with explained(self._place), self._engine.begin() as conn:
            return prepare(conn, machine, hash, mk, Private(owner=owner, deadline=deadline))

    def reconcile(self, now: float, alive: Callable[[str], bool]) -> Runs:
        with explained(self._place), self._engine.begin() as conn:
            owned = _OWNED.all(conn)
        # Asked outside of a transaction: it may take its time.
        dead = {owner for owner in {row[-2] for row in owned} if owner is not None and not alive(owner)}
        with explained(self._place), self._engine.begin() as conn:
            return _end_orphans(conn, owned, dead, now)

    def adopt(self, runs: Sequence[Run], *, new_ids: bool = False) -> Runs:
        wanted = adoptable(runs, new_ids=new_ids)
        with explained(self._place), self._engine.begin() as conn:
            return adopt(conn, wanted, new_ids=new_ids)


def get(conn: Connection, id: str) -> Run:
    """Raises RunNotFound."""
    row = _GET.one(conn, number_of(id))
    if row is None:
        raise not_found(id)
    return from_row(row)


def find(
    conn: Connection,
    *,
    machine: str | None = None,
    statuses: Collection[RunStatus] | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> Runs:
    """See `latent.store.runs.RunStore.find`."""
    table = schema.runs
    query = select(*(table.c[name] for name in ("id", *_PUBLIC_NAMES))).limit(limit)
    query = query.order_by(table.c.id.desc() if after is None else table.c.id)
    if machine is not None:
        query = query.where(table.c.machine == clean(machine))
    if statuses is not None:
        query = query.where(table.c.status.in_([status.value for status in statuses]))
    if after is not None:
        query = query.where(table.c.id > number_of(after))
    found = [from_row(tuple(row)) for row in conn.execute(query)]
    return found[::-1] if after is None else found


def adopt(conn: Connection, runs: Sequence[Run], *, new_ids: bool) -> Runs:
    """See `latent.store.runs.RunStore.adopt`. ``runs`` are `adoptable`."""
    if new_ids:
        return [_insert(conn, run, _NOTHING_PRIVATE) for run in runs]
    if conn.dialect.name == "postgresql":
        # Nobody else may get an id before the sequence is past those that come.
        _LOCK_IDS(conn)
    new, others = [], []
    for run in runs:
        if _INSERT_AS(conn, int(run.id), *_public(run)).rowcount:
            new.append(run)
        elif not same(get(conn, run.id), run):
            others.append(run.id)
    if others:
        raise taken(others)
    if conn.dialect.name == "postgresql":
        _SKIP_IDS.one(conn)
    return new


def reconcile(conn: Connection, now: float, alive: Callable[[str], bool]) -> Runs:
    """See `latent.store.runs.RunStore.reconcile`; ``alive`` must be quick, since it is asked inside of the transaction."""
    owned = _OWNED.all(conn)
    dead = {owner for owner in {row[-2] for row in owned} if owner is not None and not alive(owner)}
    return _end_orphans(conn, owned, dead, now)


def _end_orphans(conn: Connection, owned: list[Row], dead: set[str], now: float) -> Runs:
    ended = []
    for row in owned:
        run, owner, deadline = from_row(row), row[-2], row[-1]
        if owner in dead:
            run = owner_gone(run, owner, now)
        elif deadline is not None and deadline <= now:
            run = overdue(run, deadline, now)
        else:
            continue
        # As it is by now: its owner may have changed or ended it meanwhile.
        changed = _BREAK_OFF.one(conn, run.status.value, now, run.error_code, run.error_msg, row[0])
        if changed is not None:
            ended.append(from_row(changed))
    return ended


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
        clean(run.test_dir_hash),
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
    machine = clean(run.machine)
    lock_machine(conn, machine)
    live = _LIVE_ON.one(conn, machine)
    if live is not None and str(live[0]) != own_id:
        raise MachineBusy(from_row(live))


def lock_machine(conn: Connection, machine: str) -> None:
    """Until the end of the transaction nobody else claims the machine."""
    # SQLite's transactions that may write exclude each other anyway.
    if conn.dialect.name == "postgresql":
        _LOCK_MACHINE.one(conn, machine)
