"""Builds that are dispatched to one machine: table dispatches. A machine has one at a time, and the same again is that one.

A dispatch is known by its machine and the hash of its directory until its build is finished, also while the build is queued
between two runs. `latent.store.runs_sql` has the runs themselves.
"""

# ruff: noqa: S608 -- what is put into the statements here are constants of this package
from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from sqlalchemy import Connection

from latent.model import BuildRequest, Run
from latent.store import builds
from latent.store.codec import clean
from latent.store.runs import MachineBusy, PrepareOutcome
from latent.store.runs_sql import RECORD, from_row, lock_machine
from latent.store.schema import LIVE_RUN, UNFINISHED_BUILD
from latent.store.sql import Statement

_HOLDER = Statement(
    "SELECT d.build_id, d.test_dir_hash FROM dispatches d JOIN builds b ON b.id = d.build_id"
    f" WHERE d.machine = :machine AND b.{UNFINISHED_BUILD}"
)
_KEEP = Statement(
    "INSERT INTO dispatches (machine, test_dir_hash, build_id) VALUES (:machine, :hash, :build_id)"
    " ON CONFLICT (machine) DO UPDATE SET test_dir_hash = excluded.test_dir_hash, build_id = excluded.build_id"
)
_OCCUPANT = Statement(
    f"SELECT {RECORD}, build_id FROM runs WHERE (machine = :name OR worker = :worker) AND {LIVE_RUN} ORDER BY id LIMIT 1"
)
_LIVE_RUN_OF = Statement(f"SELECT {RECORD} FROM runs WHERE build_id = :build_id AND {LIVE_RUN}")


@frozen
class Dispatched:
    """CREATED: the build is new. REUSE: it, or the run if it is no build's, was there. ``run``: the one that is not over."""

    outcome: PrepareOutcome
    build_id: int | None
    run: Run | None


def dispatch(conn: Connection, request: BuildRequest, workers: Iterable[str], at: float) -> Dispatched:
    """Store the build unless the machine has it. ``workers``: who may carry it out; a run of any of them occupies the machine.

    Raises MachineBusy, which names the occupant; then nothing is stored.
    """
    wanted = request.dispatch
    assert wanted is not None
    machine, hash = clean(wanted.machine), clean(wanted.test_dir_hash)
    lock_machine(conn, machine)
    holder = _HOLDER.one(conn, machine)
    if holder is not None:
        run = run_of(conn, holder[0])
        if holder[1] != hash:
            known = builds.get(conn, holder[0]).request.dispatch
            waiting = Run(id="", machine=machine, test_dir="" if known is None else known.test_dir)
            raise MachineBusy(run or waiting, holder[0])
        return Dispatched(PrepareOutcome.REUSE, holder[0], run)
    for name in dict.fromkeys((machine, *workers)):
        row = _OCCUPANT.one(conn, name, name)
        if row is not None:
            run = from_row(row)
            if (run.machine, run.test_dir_hash) != (machine, hash):
                raise MachineBusy(run, row[-1])
            return Dispatched(PrepareOutcome.REUSE, row[-1], run)
    build = builds.insert(conn, request, at)
    _KEEP(conn, machine, hash, build.id)
    return Dispatched(PrepareOutcome.CREATED, build.id, None)


def run_of(conn: Connection, build_id: int) -> Run | None:
    """The build's run that is not over."""
    row = _LIVE_RUN_OF.one(conn, build_id)
    return None if row is None else from_row(row)
