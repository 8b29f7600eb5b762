"""Builds, and their runs as the controller sees them: tables builds, runs, run_steps. Times are POSIX seconds.

Whatever changes a build together with its run changes both in the caller's transaction, so that no crash can part them.
"""

# ruff: noqa: S608 -- what is put into the statements here are constants of this package
from __future__ import annotations

from collections.abc import Collection

from attrs import evolve, frozen
from sqlalchemy import Connection, select

from latent.errors import NotFound, RunNotFound, StoreCorrupt, StoreError
from latent.model import (
    Attempt,
    Build,
    BuildRequest,
    BuildState,
    Dispatch,
    LeaseState,
    Payload,
    Result,
    Run,
    RunStatus,
    StepState,
    StepStatus,
)
from latent.store import schema
from latent.store.codec import clean, request_from_json, request_to_json
from latent.store.runs import MachineBusy, PrepareOutcome
from latent.store.runs_sql import RECORD, Private, from_row, prepare
from latent.store.schema import LIVE_RUN, UNFINISHED_BUILD
from latent.store.sql import Row, Statement, dumps, loads


@frozen(kw_only=True)
class LiveRun:
    """A run that is not over. ``session_id`` is None until its lease is taken."""

    run_id: int
    build_id: int
    machine: str
    worker: str
    attempt: int
    status: RunStatus
    session_id: int | None
    lease: LeaseState
    started_at: float | None


@frozen(kw_only=True)
class RunDetails:
    """One try of a build. ``steps`` are in the order in which they were first reported."""

    run: Run
    worker: str
    attempt: int
    steps: list[StepState]


_COLUMNS = "id, state, result, reason, attempts, submitted_at, started_at, ended_at, cancel_requested_at, request, builder"
_INSERT = Statement(
    "INSERT INTO builds (builder, state, submitted_at, request) VALUES (:builder, 'queued', :at, :request) RETURNING id"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM builds WHERE id = :id")
_STATE = Statement("SELECT state FROM builds WHERE id = :id")
_UNFINISHED = Statement(f"SELECT {_COLUMNS} FROM builds WHERE {UNFINISHED_BUILD} ORDER BY id")
_CLAIM = Statement("UPDATE builds SET state = 'starting' WHERE id = :id AND state = 'queued'")
_ACTIVATE_RUN = Statement(
    "UPDATE runs SET status = 'running', started_at = :at, lease_state = 'active', lease_session = :session_id"
    " WHERE id = :id AND status = 'pending' RETURNING build_id"
)
_ACTIVATE_BUILD = Statement(
    "UPDATE builds SET state = 'running', started_at = COALESCE(started_at, :at), attempts = attempts + 1 WHERE id = :id"
)
_LEASE = Statement("SELECT status, lease_session FROM runs WHERE id = :id")
_FINISH_RUN = Statement(
    "UPDATE runs SET status = :status, exit_code = :exit_code, error_code = :error_code, error_msg = :error_msg,"
    f" ended_at = :at, lease_state = :lease WHERE id = :id AND {LIVE_RUN} RETURNING build_id"
)
_MOVE_BUILD = Statement(
    "UPDATE builds SET state = :state, result = :result, reason = :reason, ended_at = :ended_at"
    f" WHERE id = :id AND {UNFINISHED_BUILD}"
)
_REQUEST_CANCEL = Statement("UPDATE builds SET cancel_requested_at = COALESCE(cancel_requested_at, :at) WHERE id = :id")
_SET_REQUEST = Statement("UPDATE builds SET request = :request WHERE id = :id")
_SESSION_OF_ENDED = Statement(f"SELECT lease_session FROM runs WHERE id = :id AND NOT ({LIVE_RUN}) AND ended_at >= :since")
_LOST_BY = Statement(
    "SELECT error_msg FROM runs WHERE id = :id AND lease_session = :session_id"
    " AND status = 'interrupted' AND error_code IN ('lease_expired', 'session_lost')"
)
# The cross joins make SQLite begin with the few builds that are not over, not with all runs there ever were.
PERHAPS_RUNNING = (
    "SELECT r.build_id, r.worker, r.attempt FROM builds b CROSS JOIN runs r CROSS JOIN attempts a"
    f" WHERE b.{UNFINISHED_BUILD} AND b.state = 'queued' AND r.build_id = b.id AND a.worker = r.worker AND a.number = r.attempt"
    " AND r.status = 'interrupted' AND r.started_at IS NOT NULL"
    " AND r.error_code IN ('lease_expired', 'session_lost', 'failed_to_substantiate', 'cancelled')"
    " AND a.gone_at IS NULL AND (a.stopped_at IS NULL OR a.condemned_at IS NOT NULL) ORDER BY r.id"
)
_PERHAPS_RUNNING = Statement(PERHAPS_RUNNING)
_LIVE_RUN_OF = Statement(f"SELECT id, machine FROM runs WHERE build_id = :build_id AND {LIVE_RUN}")
_SET_STEP = Statement(
    "INSERT INTO run_steps (run_id, uuid, name, status, started_at, ended_at, exit_code, error)"
    " VALUES (:run_id, :uuid, :name, :status, :started_at, :ended_at, :exit_code, :error)"
    " ON CONFLICT (run_id, uuid) DO UPDATE SET status = excluded.status,"
    " started_at = excluded.started_at, ended_at = excluded.ended_at, exit_code = excluded.exit_code, error = excluded.error"
)
_STEP_COLUMNS = "uuid, name, status, started_at, ended_at, exit_code, error"
_STEPS = Statement(f"SELECT {_STEP_COLUMNS} FROM run_steps WHERE run_id = :run_id ORDER BY seq")
# The plus signs make SQLite take the index of the live ones, not one of all runs there ever were.
_LIVE_RUNS = Statement(
    "SELECT id, build_id, machine, worker, attempt, status, lease_session, lease_state, started_at"
    f" FROM runs WHERE {LIVE_RUN} AND +build_id IS NOT NULL ORDER BY +id"
)
_ANSWER = Statement("INSERT INTO answers (run_id, type_url, value) VALUES (:run_id, :type_url, :value)")
_ANSWER_OF = Statement(
    "SELECT run_id, type_url, value FROM answers WHERE run_id IN (SELECT id FROM runs WHERE build_id = :build_id)"
    " ORDER BY run_id DESC LIMIT 1"
)
_RUNS_OF = Statement(f"SELECT {RECORD}, worker, attempt FROM runs WHERE build_id = :build_id ORDER BY id")


def insert(conn: Connection, request: BuildRequest, at: float) -> Build:
    """Store what was asked for, as a queued build with a new id."""
    row = _INSERT.one(conn, clean(request.builder), at, dumps(request_to_json(request)))
    assert row is not None
    return Build(id=row[0], request=request, submitted_at=at)


def get(conn: Connection, id: int) -> Build:
    """Raises NotFound, and StoreCorrupt when its row can't be read."""
    row = _GET.one(conn, id)
    if row is None:
        raise _not_found(id)
    return _build(row)


def list_builds(
    conn: Connection, *, states: Collection[BuildState] | None = None, builder: str | None = None, limit: int = 50
) -> list[Build]:
    """The newest first. One whose row can't be read is without steps, and its reason says so."""
    table = schema.builds
    query = select(*(table.c[name] for name in _COLUMNS.split(", "))).order_by(table.c.id.desc()).limit(limit)
    if states is not None:
        query = query.where(table.c.state.in_([state.value for state in states]))
    if builder is not None:
        query = query.where(table.c.builder == builder)
    return [_legible(tuple(row)) for row in conn.execute(query)]


def unfinished(conn: Connection) -> tuple[list[Build], dict[int, str]]:
    """The builds that are not finished, oldest first, and by id why the rows of some can't be read."""
    found: list[Build] = []
    errors: dict[int, str] = {}
    for row in _UNFINISHED.all(conn):
        try:
            found.append(_build(row))
        except StoreCorrupt as error:
            errors[row[0]] = str(error)
    return found, errors


def claim(
    conn: Connection, build_id: int, machine: str, worker: str, attempt: int, at: float, dispatch: Dispatch | None = None
) -> int:
    """Give a queued build the machine: it gets a pending run, whose id is returned. Again for the same machine: that one again.

    ``dispatch``: that of the build's request, which the run's record tells.
    Raises MachineBusy, which names the occupant; NotFound; and StoreError when the build is not queued.
    """
    if not _CLAIM(conn, build_id).rowcount:
        return _claimed_before(conn, build_id, machine)
    hash = f"build:{build_id}" if dispatch is None else dispatch.test_dir_hash
    private = Private(build_id=build_id, worker=worker, attempt=attempt, lease=LeaseState.PENDING)
    run, outcome = prepare(conn, machine, hash, lambda: _record(machine, hash, dispatch), private)
    if outcome is not PrepareOutcome.CREATED:
        raise MachineBusy(run)
    return int(run.id)


def activate(conn: Connection, run_id: int, session_id: int, at: float) -> None:
    """The session has taken the lease: run and build are running. Again by the same session: nothing changes.

    Raises RunNotFound, and StoreError when the run is over or another session's.
    """
    row = _ACTIVATE_RUN.one(conn, at, session_id, run_id)
    if row is not None:
        _ACTIVATE_BUILD(conn, at, row[0])
        return
    status, holder = _lease(conn, run_id)
    if status is not RunStatus.RUNNING or holder != session_id:
        raise StoreError(f"run {run_id} can't be started: it is {status.value}, held by session {holder}")


def finish(
    conn: Connection,
    run_id: int,
    *,
    status: RunStatus,
    exit_code: int | None,
    error_code: str,
    error_msg: str,
    at: float,
    lease: LeaseState,
    build_state: BuildState,
    build_result: Result | None,
    reason: str,
    answer: Payload | None = None,
) -> None:
    """End a run and its lease, and move its build on: to FINISHED with a result or, to be tried again, to QUEUED.

    A run that is over is left as it is, and so is its build. Raises RunNotFound.
    """
    row = _FINISH_RUN.one(conn, status.value, exit_code, clean(error_code), clean(error_msg), at, lease.value, run_id)
    if row is None:
        _lease(conn, run_id)
        return
    if answer is not None:
        _ANSWER(conn, run_id, clean(answer.type_url), answer.value)
    if row[0] is not None:
        _move(conn, row[0], build_state, build_result, reason, at)


def set_priority(conn: Connection, build_id: int, priority: int) -> Build:
    """The build as it is with another priority; one that is finished is left as it is. Raises NotFound, StoreCorrupt."""
    build = get(conn, build_id)
    if build.state is BuildState.FINISHED:
        return build
    build = evolve(build, request=evolve(build.request, priority=priority))
    _SET_REQUEST(conn, dumps(request_to_json(build.request)), build_id)
    return build


def request_cancel(conn: Connection, build_id: int, at: float) -> None:
    """Somebody wants the build to end. Raises NotFound."""
    if not _REQUEST_CANCEL(conn, at, build_id).rowcount:
        raise _not_found(build_id)


def end(conn: Connection, build_id: int, result: Result, reason: str, at: float) -> None:
    """Finish a build that has no run. One that is finished is left as it is. Raises NotFound; StoreError if it has a run."""
    if (live := _LIVE_RUN_OF.one(conn, build_id)) is not None:
        raise StoreError(f"build {build_id} can't be ended: its run {live[0]} on {live[1]} is not over")
    if not _move(conn, build_id, BuildState.FINISHED, result, reason, at) and _STATE.one(conn, build_id) is None:
        raise _not_found(build_id)


def set_step(conn: Connection, run_id: int, step: StepState) -> None:
    """Keep the last report of a step, told from others by its uuid."""
    _SET_STEP(
        conn,
        run_id,
        step.uuid,
        clean(step.name),
        step.status.value,
        step.started_at,
        step.ended_at,
        step.exit_code,
        clean(step.error),
    )


def steps(conn: Connection, run_id: int) -> list[StepState]:
    """In the order in which they were first reported."""
    return [
        StepState(
            uuid=uuid,
            name=name,
            status=StepStatus(status),
            started_at=started_at,
            ended_at=ended_at,
            exit_code=exit_code,
            error=error,
        )
        for uuid, name, status, started_at, ended_at, exit_code, error in _STEPS.all(conn, run_id)
    ]


def live_runs(conn: Connection) -> list[LiveRun]:
    """All runs of builds that are not over, oldest first."""
    return [
        LiveRun(
            run_id=run_id,
            build_id=build_id,
            machine=machine,
            worker=worker,
            attempt=attempt,
            status=RunStatus(status),
            session_id=session_id,
            lease=LeaseState(lease),
            started_at=started_at,
        )
        for run_id, build_id, machine, worker, attempt, status, session_id, lease, started_at in _LIVE_RUNS.all(conn)
    ]


def session_of_ended(conn: Connection, run_id: int, since: float) -> int | None:
    """The session that held a run which ended at ``since`` or later; None for any other run."""
    row = _SESSION_OF_ENDED.one(conn, run_id, since)
    return None if row is None else row[0]


def lost_by(conn: Connection, run_id: int, session_id: int) -> str | None:
    """Why the session lost the run, if it did: its lease expired, or it was away itself."""
    row = _LOST_BY.one(conn, run_id, session_id)
    return None if row is None else row[0]


def perhaps_running(conn: Connection) -> list[tuple[int, Attempt]]:
    """Queued builds, and the attempts on which they were begun, were not heard of any more, and may still be running."""
    return [(build_id, Attempt(worker, attempt)) for build_id, worker, attempt in _PERHAPS_RUNNING.all(conn)]


def runs_of(conn: Connection, build_id: int) -> list[RunDetails]:
    """Every try of the build, oldest first."""
    return [
        RunDetails(run=from_row(row), worker=row[-2], attempt=row[-1], steps=steps(conn, row[0]))
        for row in _RUNS_OF.all(conn, build_id)
    ]


def answer_of(conn: Connection, build_id: int) -> tuple[int, Payload] | None:
    """What a bot answered, and in which run; the last answer if there are several, None if there is none. Raises NotFound."""
    row = _ANSWER_OF.one(conn, build_id)
    if row is not None:
        return row[0], Payload(row[1], bytes(row[2]))
    if _STATE.one(conn, build_id) is None:
        raise _not_found(build_id)
    return None


def _record(machine: str, hash: str, dispatch: Dispatch | None) -> Run:
    if dispatch is None:
        return Run(id="", machine=machine, test_dir_hash=hash)
    return Run(
        id="",
        machine=machine,
        test_dir=dispatch.test_dir,
        test_dir_hash=hash,
        batch_id=dispatch.batch_id,
        plan_entry=dispatch.plan_entry,
    )


def _claimed_before(conn: Connection, build_id: int, machine: str) -> int:
    row = _STATE.one(conn, build_id)
    if row is None:
        raise _not_found(build_id)
    live = _LIVE_RUN_OF.one(conn, build_id)
    if live is not None and live[1] == machine:
        return int(live[0])
    where = "" if live is None else f", on machine {live[1]} as run {live[0]}"
    raise StoreError(f"build {build_id} can't be given machine {machine}: it is {row[0]}{where}")


def _lease(conn: Connection, run_id: int) -> tuple[RunStatus, int | None]:
    row = _LEASE.one(conn, run_id)
    if row is None:
        raise RunNotFound(f"there is no run {run_id}")
    return RunStatus(row[0]), row[1]


def _move(conn: Connection, build_id: int, state: BuildState, result: Result | None, reason: str, at: float) -> bool:
    ended_at = at if state is BuildState.FINISHED else None
    value = None if result is None else result.value
    return bool(_MOVE_BUILD(conn, state.value, value, clean(reason), ended_at, build_id).rowcount)


def _not_found(build_id: int) -> NotFound:
    return NotFound(f"there is no build {build_id}")


def _build(row: Row) -> Build:
    what = f"build {row[0]}"
    return _with_request(row, request_from_json(loads(row[9], what), what))


def _with_request(row: Row, request: BuildRequest) -> Build:
    id, state, result, reason, attempts, submitted_at, started_at, ended_at, cancel_requested_at, _, _ = row
    return Build(
        id=id,
        request=request,
        state=BuildState(state),
        result=None if result is None else Result(result),
        reason=reason,
        attempts=attempts,
        submitted_at=submitted_at,
        started_at=started_at,
        ended_at=ended_at,
        cancel_requested=cancel_requested_at is not None,
    )


def _legible(row: Row) -> Build:
    try:
        return _build(row)
    except StoreCorrupt as error:
        return evolve(_with_request(row, BuildRequest(builder=row[10], steps=())), reason=str(error))
