"""Builds with their runs, leases and steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from latent.errors import NotFound, RunNotFound, StoreCorrupt, StoreError
from latent.model import (
    Build,
    BuildState,
    LeaseState,
    Payload,
    Result,
    Run,
    RunStatus,
    StepState,
    StepStatus,
)
from latent.store import builds, runs
from latent.store.database import Store
from tests.store.helpers import REQUEST, finish, open_inline, result


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = open_inline(tmp_path)
    yield store
    result(store.close())


@pytest.fixture
def conn(store: Store) -> Any:
    with store.engine.begin() as connection:
        yield connection


def submit(conn: Any, at: float = 1.0, **changes: Any) -> Build:
    return builds.insert(conn, evolve(REQUEST, **changes), at)


def claim(conn: Any, build: Build, machine: str = "m1") -> int:
    return builds.claim(conn, build.id, machine, f"worker-{machine}", 1, 2.0)


def test_a_build_comes_back_as_it_was_asked_for(conn: Any) -> None:
    build = submit(conn)
    assert build == Build(id=build.id, request=REQUEST, submitted_at=1.0)
    assert builds.get(conn, build.id) == build
    assert submit(conn).id > build.id
    with pytest.raises(NotFound, match="there is no build 99"):
        builds.get(conn, 99)


def test_a_builds_life(conn: Any) -> None:
    """Queued, starting, running, finished: run, lease and build move together."""
    build = submit(conn)
    run_id = claim(conn, build)
    assert builds.get(conn, build.id).state is BuildState.STARTING
    pending = builds.LiveRun(
        run_id=run_id,
        build_id=build.id,
        machine="m1",
        worker="worker-m1",
        attempt=1,
        status=RunStatus.PENDING,
        session_id=None,
        lease=LeaseState.PENDING,
        started_at=None,
    )
    assert builds.live_runs(conn) == [pending]
    builds.activate(conn, run_id, 5, 3.0)
    assert builds.live_runs(conn) == [
        evolve(pending, status=RunStatus.RUNNING, session_id=5, lease=LeaseState.ACTIVE, started_at=3.0)
    ]
    running = builds.get(conn, build.id)
    assert (running.state, running.started_at, running.attempts) == (BuildState.RUNNING, 3.0, 1)
    finish(conn, run_id)
    done = builds.get(conn, build.id)
    assert (done.state, done.result, done.reason) == (BuildState.FINISHED, Result.SUCCESS, "all steps succeeded")
    assert (done.started_at, done.ended_at, done.attempts) == (3.0, 9.0, 1)
    assert builds.live_runs(conn) == []
    (details,) = builds.runs_of(conn, build.id)
    assert details == builds.RunDetails(
        run=Run(
            id=str(run_id),
            machine="m1",
            test_dir_hash=f"build:{build.id}",
            status=RunStatus.COMPLETED,
            exit_code=0,
            started_at=3.0,
            ended_at=9.0,
        ),
        worker="worker-m1",
        attempt=1,
        steps=[],
    )


def test_an_interrupted_build_is_queued_again(conn: Any) -> None:
    """It keeps its first start and counts its tries; each try is a run of its own."""
    build = submit(conn)
    first = claim(conn, build)
    builds.activate(conn, first, 5, 3.0)
    finish(conn, first, requeue=True)
    again = builds.get(conn, build.id)
    assert (again.state, again.result, again.ended_at, again.attempts) == (BuildState.QUEUED, None, None, 1)
    assert again.reason == "its agent is gone"
    second = claim(conn, build, "m2")
    builds.activate(conn, second, 6, 13.0)
    finish(conn, second, at=19.0)
    done = builds.get(conn, build.id)
    assert (done.started_at, done.ended_at, done.attempts) == (3.0, 19.0, 2)
    tries = builds.runs_of(conn, build.id)
    assert [(each.run.status, each.run.error_code, each.worker) for each in tries] == [
        (RunStatus.INTERRUPTED, "lost", "worker-m1"),
        (RunStatus.COMPLETED, "", "worker-m2"),
    ]


def test_a_machine_has_one_build(conn: Any) -> None:
    """A claim of a busy machine names the occupant."""
    first, second = submit(conn), submit(conn)
    run_id = claim(conn, first)
    with pytest.raises(runs.MachineBusy, match=rf"machine m1 is busy with run {run_id} \(pending\)") as caught:
        claim(conn, second)
    assert caught.value.occupant.id == str(run_id)


def test_a_refused_claim_changes_nothing(store: Store) -> None:
    first, second = (result(store.write(lambda conn: submit(conn))) for _ in range(2))
    result(store.write(lambda conn: claim(conn, first)))
    with pytest.raises(runs.MachineBusy):
        result(store.write(lambda conn: claim(conn, second)))
    assert result(store.read(lambda conn: builds.get(conn, second.id))).state is BuildState.QUEUED


def test_a_claim_may_be_repeated(conn: Any) -> None:
    """For the same machine it is the same run; a build has but one machine at a time, and none when it is finished."""
    build = submit(conn)
    run_id = claim(conn, build)
    assert claim(conn, build) == run_id
    builds.activate(conn, run_id, 5, 3.0)
    assert claim(conn, build) == run_id
    with pytest.raises(StoreError, match=rf"can't be given machine m2: it is running, on machine m1 as run {run_id}"):
        claim(conn, build, "m2")
    finish(conn, run_id)
    with pytest.raises(StoreError, match=r"can't be given machine m1: it is finished$"):
        claim(conn, build)
    with pytest.raises(NotFound):
        builds.claim(conn, 99, "m9", "w", 1, 1.0)


def test_the_database_itself_allows_a_build_one_live_run(store: Store) -> None:
    """Also where the functions here are passed by."""
    build = result(store.write(lambda conn: submit(conn)))
    result(store.write(lambda conn: claim(conn, build)))
    insert = "INSERT INTO runs (machine, status, build_id) VALUES ('m2', 'running', ?)"
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        result(store.write(lambda conn: conn.exec_driver_sql(insert, (build.id,))))


def test_activation(conn: Any) -> None:
    """The same session may say it twice; another one, or after the end, is refused."""
    run_id = claim(conn, submit(conn))
    builds.activate(conn, run_id, 5, 3.0)
    builds.activate(conn, run_id, 5, 4.0)
    assert [(each.started_at, each.session_id) for each in builds.live_runs(conn)] == [(3.0, 5)]
    with pytest.raises(StoreError, match="it is running, held by session 5"):
        builds.activate(conn, run_id, 6, 4.0)
    finish(conn, run_id)
    with pytest.raises(StoreError, match="it is completed"):
        builds.activate(conn, run_id, 5, 10.0)
    with pytest.raises(RunNotFound, match="there is no run 99"):
        builds.activate(conn, 99, 5, 3.0)


def test_a_run_ends_once(conn: Any) -> None:
    """A second end changes neither the run nor the build, which may have a new run by then."""
    build = submit(conn)
    first = claim(conn, build)
    finish(conn, first, requeue=True)
    second = claim(conn, build, "m2")
    finish(conn, first)
    assert builds.get(conn, build.id).state is BuildState.STARTING
    assert [each.run_id for each in builds.live_runs(conn)] == [second]
    assert builds.runs_of(conn, build.id)[0].run.status is RunStatus.INTERRUPTED
    with pytest.raises(RunNotFound):
        finish(conn, 99)


def test_an_answer_is_stored_with_the_run(conn: Any) -> None:
    """Once, with the end that counted; the last run's answer is the build's."""
    build = submit(conn, steps=(), payload=Payload("t/Task", bytes(range(256))))
    assert builds.get(conn, build.id).request.payload == build.request.payload
    assert builds.answer_of(conn, build.id) is None
    first = claim(conn, build)
    finish(conn, first, requeue=True, answer=Payload("t/Partial", b""))
    finish(conn, first, answer=Payload("t/Late", b"no"))
    assert builds.answer_of(conn, build.id) == (first, Payload("t/Partial", b""))
    second = claim(conn, build)
    finish(conn, second, answer=Payload("t/Answer", b"\0\xff"))
    assert builds.answer_of(conn, build.id) == (second, Payload("t/Answer", b"\0\xff"))
    with pytest.raises(NotFound):
        builds.answer_of(conn, 99)


def test_a_build_without_a_run_is_ended(conn: Any) -> None:
    """Once; one whose run goes on is not."""
    build, running = submit(conn), submit(conn)
    builds.end(conn, build.id, Result.CANCELLED, "nobody wants it", 4.0)
    builds.end(conn, build.id, Result.FAILURE, "another reason", 5.0)
    ended = builds.get(conn, build.id)
    assert (ended.state, ended.result, ended.reason, ended.ended_at) == (
        BuildState.FINISHED,
        Result.CANCELLED,
        "nobody wants it",
        4.0,
    )
    run_id = claim(conn, running)
    with pytest.raises(StoreError, match=rf"its run {run_id} on m1 is not over"):
        builds.end(conn, running.id, Result.CANCELLED, "x", 4.0)
    with pytest.raises(NotFound):
        builds.end(conn, 99, Result.CANCELLED, "x", 4.0)


def test_a_wish_to_cancel_is_kept(conn: Any) -> None:
    build = submit(conn)
    builds.request_cancel(conn, build.id, 2.0)
    builds.request_cancel(conn, build.id, 3.0)
    assert builds.get(conn, build.id).cancel_requested
    with pytest.raises(NotFound):
        builds.request_cancel(conn, 99, 2.0)


def test_lists(conn: Any) -> None:
    """The newest first; by states, by builder, and no more than asked for."""
    ids = [submit(conn, builder="ab"[n % 2]).id for n in range(6)]
    builds.end(conn, ids[0], Result.SUCCESS, "", 1.0)
    claim(conn, builds.get(conn, ids[1]))

    def listed(**wanted: Any) -> list[int]:
        return [build.id for build in builds.list_builds(conn, **wanted)]

    assert listed() == ids[::-1]
    assert listed(limit=2) == ids[:3:-1]
    assert listed(builder="a") == ids[::2][::-1]
    assert listed(states=[BuildState.FINISHED, BuildState.STARTING]) == [ids[1], ids[0]]
    assert listed(states=[BuildState.FINISHED], builder="b") == []
    assert listed(states=[]) == []
    assert [build.id for build in builds.unfinished(conn)[0]] == ids[1:]


def test_one_damaged_build_stops_no_other(conn: Any) -> None:
    """It is reported by id, and listed without steps and with the reason."""
    first, second = submit(conn), submit(conn)
    conn.exec_driver_sql(f"UPDATE builds SET request = '{{' WHERE id = {first.id}")
    found, errors = builds.unfinished(conn)
    assert found == [second]
    assert list(errors) == [first.id]
    assert f"build {first.id} is damaged" in errors[first.id]
    with pytest.raises(StoreCorrupt, match="is damaged"):
        builds.get(conn, first.id)
    listed = builds.list_builds(conn)
    assert listed[0] == second
    assert (listed[1].request.builder, listed[1].request.steps) == ("compile", ())
    assert "is damaged" in listed[1].reason


def test_steps_keep_their_last_report(conn: Any) -> None:
    """In the order in which they were first reported, each run its own."""
    build = submit(conn)
    run_id = claim(conn, build)
    first = StepState(uuid="u1", name="make", started_at=3.0)
    second = StepState(uuid="u0", name="test", started_at=4.0)
    builds.set_step(conn, run_id, first)
    builds.set_step(conn, run_id, second)
    ended = evolve(first, status=StepStatus.FAILURE, ended_at=5.0, exit_code=2, error="half \ud800 a pair, and a \0")
    builds.set_step(conn, run_id, ended)
    kept = [evolve(ended, error="half ? a pair, and a \ufffd"), second]
    assert builds.steps(conn, run_id) == kept
    assert builds.runs_of(conn, build.id)[0].steps == kept
    assert builds.steps(conn, 99) == []


def test_steps_of_no_run_are_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        result(store.write(lambda conn: builds.set_step(conn, 99, StepState(uuid="u"))))
