"""Workflows in the controller: bound once, each attempt carried out once, followed by asking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from latent.errors import ConfigError, ControllerStopping, NotFound, NotYourWorkflow
from latent.model import BuildState, Result
from latent.store import builds
from latent.store.tasks import Try
from latent.swarm.following import trouble
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import ArrayDefinition, Batch, Delta, TaskDefinition, Trouble
from tests.swarm.site import ARRAY, Site, apart, chain, definition


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def errors(site: Site, awaitable: Any) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        site.ask(awaitable)
    return wrong.value.errors


# --- definitions ----------------------------------------------------------------------------------------------------------


def test_binding_is_the_same_again(site: Site) -> None:
    """The same digest has the same ids; another workflow's come after them."""
    first = site.ask(site.workflows.bind(definition(3)))
    assert site.ask(site.workflows.bind(definition(3))) == first
    second = site.ask(site.workflows.bind(definition(5, name="v")))
    assert (second.first_task, second.workflow_id) == (first.first_task + 3, first.workflow_id + 1)
    assert [info.name for info in site.ask(site.workflows.workflows())] == ["v", "w"]


def test_binding_that_was_cut_short_goes_on(site: Site) -> None:
    """What is stored stays as it is, whatever dies in between; the workflow is queued when all is there."""
    tasks = chain(10)
    bound = site.ask(site.workflows.bind(definition(10)))
    assert site.ask(site.workflows.add_tasks(bound.workflow_id, 0, tasks[:4])).tasks == 4
    site.restart()
    assert site.ask(site.workflows.bind(definition(10))).tasks == 4
    assert site.ask(site.workflows.workflow(bound.workflow_id)).status is WorkflowStatus.REGISTERING
    assert site.ask(site.workflows.add_tasks(bound.workflow_id, 2, tasks[2:6])).tasks == 6
    assert site.ask(site.workflows.add_tasks(bound.workflow_id, 0, tasks[:3])).tasks == 6
    assert site.ask(site.workflows.add_tasks(bound.workflow_id, 6, tasks[6:])).tasks == 10
    assert site.ask(site.workflows.add_tasks(bound.workflow_id, 6, tasks[6:])).tasks == 10
    info = site.ask(site.workflows.workflow(bound.workflow_id))
    assert (info.status, info.tasks, info.arrays[0].counts) == (WorkflowStatus.QUEUED, 10, {TaskStatus.REGISTERING: 10})
    ids = range(bound.first_task, bound.first_task + 10)
    rows = site.ask(site.workflows.tasks(bound.workflow_id, 0, 100))
    assert [(row.id, row.name) for row in rows] == [(id, f"t{n}") for n, id in enumerate(ids)]
    down = site.ask(site.workflows.downstream(bound.workflow_id, ids))
    assert down == {id: [id + 1] if id + 1 in ids else [] for id in ids}


def test_tasks_are_read_in_parts(site: Site) -> None:
    """By their ids and statuses; those of other workflows are none of this one's."""
    site.bound(apart(3), name="before")
    bound = site.bound([TaskDefinition(0, f"t{n}", resources={"memory": n} if n % 2 else {}) for n in range(20)])
    site.bound(apart(3), name="after")
    first = bound.first_task
    ids, after = [], 0
    while page := site.ask(site.workflows.tasks(bound.workflow_id, after, 7)):
        ids += [row.id for row in page]
        after = ids[-1]
    assert ids == list(range(first, first + 20))
    assert [row.resources for row in site.ask(site.workflows.tasks(bound.workflow_id, 0, 2))] == [{}, {"memory": 1}]
    run = site.driven(bound.workflow_id)
    site.queue(run, bound, 5)
    queued = site.ask(site.workflows.tasks(bound.workflow_id, 0, 100, {TaskStatus.INSTANTIATED}))
    assert [(row.id, row.attempts) for row in queued] == [(first + 5, 1)]
    assert len(site.ask(site.workflows.tasks(bound.workflow_id, 0, 100, set(TaskStatus)))) == 20
    far = [first, first + 19, first - 1, first + 20, 10**9]
    assert site.ask(site.workflows.downstream(bound.workflow_id, far)) == {first: [], first + 19: []}
    assert site.ask(site.workflows.downstream(bound.workflow_id, [])) == {}


def test_definitions_that_make_no_sense(site: Site) -> None:
    """All that is wrong is told at once, and nothing is stored."""
    twice = (ARRAY, evolve(ARRAY, template="werk", max_running=0, resources={"memory": -1.0}, scale={"memory": float("nan")}))
    found = errors(site, site.workflows.bind(definition(0, *twice, max_running=0)))
    for words in ("has 0 tasks", "max_running of workflow", "two arrays", "no builder is called 'werk'", "is -1.0", "scale"):
        assert any(words in error for error in found), words
    assert site.ask(site.workflows.workflows()) == []
    bound = site.ask(site.workflows.bind(definition(2)))
    for tasks, words in (
        ([TaskDefinition(1, "t")], "array 1, of 1"),
        ([TaskDefinition(0, " ")], "has no name"),
        ([TaskDefinition(0, "t", max_attempts=0)], "max_attempts is 0"),
        ([TaskDefinition(0, "t", (0,))], "or the task itself"),
        ([TaskDefinition(0, "t", (2,))], "of another workflow"),
        ([TaskDefinition(0, "t", resources={"timeout": 0})], "timeout"),
        ([TaskDefinition(0, "t", labels={"os": 1})], "strings"),  # type: ignore[dict-item]
        ([TaskDefinition(0, "t", properties={"x": object()})], "JSON"),
        (apart(3), "is to have 2 tasks, not 3"),
    ):
        (error,) = errors(site, site.workflows.add_tasks(bound.workflow_id, 0, tasks))
        assert words in error
    assert "store them in order" in errors(site, site.workflows.add_tasks(bound.workflow_id, 1, apart(1)))[0]
    assert len(errors(site, site.workflows.add_tasks(bound.workflow_id, 0, [TaskDefinition(9, "")] * 2))) == 4
    with pytest.raises(NotFound, match="there is no workflow 9"):
        site.ask(site.workflows.add_tasks(9, 0, []))


# --- an attempt -----------------------------------------------------------------------------------------------------------


def test_a_task_is_carried_out(site: Site) -> None:
    """Its status is what its build's is, whenever somebody asks."""
    bound = site.bound(apart(2))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    first, second = bound.first_task, bound.first_task + 1
    (queued,) = site.queue(run, bound, 0)
    assert (queued.status, queued.attempts) == (TaskStatus.INSTANTIATED, 1)
    delta = site.ask(site.workflows.sync(run.id, None))
    assert {change.id: change.status.value for change in delta.changes} == {first: "O"}
    agent.take()
    agent.begin()
    assert site.statuses(run, delta.now) == {first: "R"}
    agent.finish()
    delta = site.ask(site.workflows.sync(run.id, delta.now))
    assert [(c.id, c.status.value, c.build_id) for c in delta.changes] == [(first, "D", queued.build_id)]
    assert site.statuses(run, delta.now) == {}
    site.queue(run, bound, 1)
    site.work(agent, Result.FAILURE, exit_code=2)
    (change,) = site.ask(site.workflows.sync(run.id, delta.now)).changes
    assert (change.id, change.status, change.trouble, change.reason) == (
        second,
        TaskStatus.ERROR_RECOVERABLE,
        Trouble.FAILURE,
        "exit code 2",
    )
    of = site.ask(site.workflows.task_of(queued.build_id))
    assert (of.workflow, of.task, of.attempt, of.task_id) == ("w", "t0", 1, first)
    assert site.ask(site.workflows.task_of(10**6)) is None


def test_a_build_is_what_array_and_task_say(site: Site) -> None:
    """Properties and labels are the array's, the task's over them; amounts are properties, but for the timeout."""
    array = ArrayDefinition(
        name="a",
        template="named",
        properties={"what": "all", "deep": {"x": [1]}},
        labels={"os": "linux", "size": "s"},
        fallbacks=({"size": "xl"},),
        priority=7,
    )
    task = TaskDefinition(0, "t", properties={"what": "mine"}, labels={"gpu": "yes"})
    bound = site.bound([task, TaskDefinition(0, "u")], array)
    run = site.driven(bound.workflow_id)
    (one,) = site.queue(run, bound, 0, resources={"memory": 8, "timeout": 30})
    (two,) = site.queue(run, bound, 1, attempt=2, resources={"memory": 16.5}, level=1)
    assert one.build_id is not None
    assert two.build_id is not None
    request = site.harness.build(one.build_id).request
    assert request.steps[0].command == "do mine"
    assert (request.properties["memory"], request.properties["deep"], request.timeout) == (8, {"x": [1]}, 30.0)
    assert (request.properties["task"], request.properties["workflow"], request.properties["task_attempt"]) == ("t", "w", 1)
    assert "timeout" not in request.properties
    assert (dict(request.requirements.labels), request.priority) == ({"os": "linux", "size": "s", "gpu": "yes"}, 7)
    request = site.harness.build(two.build_id).request
    assert request.steps[0].command == "do all"
    assert (request.properties["memory"], request.timeout) == (16.5, 600.0)
    assert dict(request.requirements.labels) == {"size": "xl"}
    row = site.ask(site.workflows.tasks(bound.workflow_id, bound.first_task, 1))[0]
    assert (row.resources, row.level, row.attempts, row.build_id) == ({"memory": 16.5}, 1, 2, two.build_id)


def test_a_build_that_can_not_be_asked_for(site: Site) -> None:
    """The task fails for good, and says why; the others of its batch are queued."""
    array = ArrayDefinition(name="a", template="named")
    bound = site.bound([TaskDefinition(0, "t"), TaskDefinition(0, "u", properties={"what": "x"})], array)
    run = site.driven(bound.workflow_id)
    bad, good = site.queue(run, bound, 0, 1)
    assert (bad.status, bad.trouble, bad.attempts, bad.build_id) == (TaskStatus.ERROR_FATAL, Trouble.REFUSED, 1, None)
    assert "property 'what' has no value" in bad.reason
    assert good.status is TaskStatus.INSTANTIATED
    assert site.queue(run, bound, 0, 1)[0] == bad


def test_an_attempt_has_one_build(site: Site) -> None:
    """However often it is asked for, and whatever dies in between."""
    bound = site.bound(apart(3))
    run = site.driven(bound.workflow_id)
    (once,) = site.queue(run, bound, 0)
    (again, new) = site.queue(run, bound, 0, 1)
    assert (again.build_id, new.attempts) == (once.build_id, 1)
    lost: list[Any] = []
    site.harness.controller.accept = lost.append  # type: ignore[method-assign]
    (third,) = site.queue(run, bound, 2)
    assert [build.id for build in lost] == [third.build_id]
    site.restart()
    agent = site.agent()
    site.work(agent, *[Result.SUCCESS] * 3)
    assert site.queue(run, bound, 0, 1, 2)[2].build_id == third.build_id
    assert site.counts(bound.workflow_id) == {"D": 3}
    assert len(site.harness.disk(builds.list_builds)) == 3


def test_a_batch_that_makes_no_sense(site: Site) -> None:
    other = site.bound(apart(1), name="other")
    bound = site.bound(apart(2))
    run = site.driven(bound.workflow_id)
    with pytest.raises(NotFound, match="has no task"):
        site.ask(site.workflows.queue(run.id, Batch(array_id=bound.arrays[0], tasks=[(1, 1)], resources={}, level=0)))
    with pytest.raises(NotFound, match="has no array"):
        site.ask(site.workflows.queue(run.id, Batch(array_id=other.arrays[0], tasks=[], resources={}, level=0)))
    found = errors(
        site,
        site.workflows.queue(
            run.id, Batch(array_id=bound.arrays[0], tasks=[(2, 1), (2, 0)], resources={"x": float("inf")}, level=-1)
        ),
    )
    assert len(found) == 4
    with pytest.raises(ConfigError, match="has 0 fallbacks, not 1"):
        site.queue(run, bound, 0, level=1)


def test_a_task_that_is_carried_out_gets_no_second_build(site: Site) -> None:
    """A driver that has lost count asks for another attempt of what runs, or is done."""
    bound = site.bound(apart(2))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    site.queue(run, bound, 0, 1)
    site.work(agent, Result.SUCCESS)
    changes = site.queue(run, bound, 0, 1, attempt=2)
    assert [change.attempts for change in changes] == [1, 1]
    assert site.counts(bound.workflow_id) == {"D": 1, "O": 1}
    assert [change.attempts for change in site.queue(run, bound, 0, 1, attempt=2)] == [1, 1]
    assert len(site.harness.disk(builds.list_builds)) == 2


def test_a_controller_that_stops_takes_no_tasks(site: Site) -> None:
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    site.harness.controller._stopping = True
    with pytest.raises(ControllerStopping):
        site.queue(run, bound, 0)


def test_what_the_driver_decides_is_kept(site: Site) -> None:
    """Status, resources and level of a task that failed; of one that is carried out nothing is changed."""
    bound = site.bound(apart(3))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    site.queue(run, bound, 0, 1)
    site.work(agent, Result.TIMEOUT)
    assert site.counts(bound.workflow_id) == {"E": 1, "O": 1, "G": 1}
    first = bound.first_task
    verdict = (TaskStatus.ADJUSTING_RESOURCES, {"timeout": 60}, 0)
    now = site.ask(site.workflows.workflow(bound.workflow_id)).now
    site.ask(site.workflows.settle(run.id, {first: verdict, first + 1: verdict}))
    assert site.statuses(run, now) == {first: "A"}
    site.restart()
    row = site.ask(site.workflows.tasks(bound.workflow_id, 0, 1))[0]
    assert (row.status.value, row.resources, row.attempts) == ("A", {"timeout": 60}, 1)
    (change,) = site.queue(run, bound, 0, attempt=2, resources={"timeout": 60})
    assert (change.status.value, change.attempts, change.trouble) == ("I", 2, None)
    found = errors(site, site.workflows.settle(run.id, {first: (TaskStatus.DONE, {"x": -1}, 0)}))
    assert len(found) == 2


# --- following ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "how", "expected"),
    [
        (Result.FAILURE, {"exit_code": 1}, Trouble.FAILURE),
        (Result.FAILURE, {"exit_code": 137, "error": "ended by SIGKILL"}, Trouble.MEMORY),
        (Result.FAILURE, {"exit_code": -9}, Trouble.MEMORY),
        (Result.TIMEOUT, {"exit_code": 143, "error": "no output for 1200 s"}, Trouble.TIMEOUT),
        (Result.TIMEOUT, {"exit_code": 137}, Trouble.TIMEOUT),
    ],
)
def test_why_a_build_did_not_succeed(site: Site, result: Result, how: dict[str, Any], expected: Trouble) -> None:
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    site.queue(run, bound, 0)
    site.work(site.agent(), result, **how)
    (change,) = site.ask(site.workflows.sync(run.id, None)).changes
    assert (change.status.value, change.trouble) == ("E", expected)
    assert change.reason


def test_trouble_that_is_not_the_builds() -> None:
    """Memory that an instance ran out of, an instance that can't be made for these properties, and all else."""
    oom = "worker w: instance was killed for want of memory (exit code 137)"
    tried = [Try(None, "session_lost", "its agent left"), Try(None, "session_lost", oom)]
    assert trouble(Result.EXCEPTION, f"aborted: {oom} (tried 5 times)", tried) is Trouble.MEMORY
    assert trouble(Result.EXCEPTION, "aborted", tried) is Trouble.MEMORY
    assert trouble(Result.EXCEPTION, "aborted: its lease expired", tried[:1]) is Trouble.INFRASTRUCTURE
    no_image = [Try(None, "cannot_substantiate", "no image for bloom")]
    assert trouble(Result.EXCEPTION, "worker w: no image for bloom", no_image) is Trouble.REFUSED
    assert trouble(Result.CANCELLED, "", []) is Trouble.CANCELLED


def test_somebody_cancels_a_build(site: Site) -> None:
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    (change,) = site.queue(run, bound, 0)
    assert change.build_id is not None
    site.harness.cancel(change.build_id, "not that one")
    (change,) = site.ask(site.workflows.sync(run.id, None)).changes
    assert (change.status.value, change.trouble, change.reason) == ("E", Trouble.CANCELLED, "not that one")


def test_a_build_that_comes_back_is_queued_again(site: Site) -> None:
    """Its agent is lost: the task waits again, with the same attempt and the same build."""
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    site.queue(run, bound, 0)
    agent.take()
    agent.begin()
    now = site.ask(site.workflows.sync(run.id, None)).now
    agent.leave()
    (change,) = site.ask(site.workflows.sync(run.id, now)).changes
    assert (change.status.value, change.attempts, change.trouble) == ("I", 1, None)


def test_no_change_is_missed(site: Site) -> None:
    """Each is told once, in whatever order things happen, also when the clock is set back, or the controller starts anew."""
    bound = site.bound(apart(40))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    now = site.ask(site.workflows.workflow(bound.workflow_id)).now
    seen: list[int] = []

    def look() -> None:
        nonlocal now
        delta: Delta = site.ask(site.workflows.sync(run.id, now))
        assert delta.now > now
        now = delta.now
        seen.extend(change.id for change in delta.changes if change.status is TaskStatus.DONE)

    for n in range(0, 40, 4):
        site.queue(run, bound, n, n + 1)
        site.work(agent, Result.SUCCESS)
        look()
        if n == 8:
            site.harness.clock.rightNow -= 1000
        if n == 20:
            site.crash()
            site.harness.clock.rightNow -= 1000
            site.restart()
            agent.come_back()
        site.queue(run, bound, n + 2, n + 3)
        site.work(agent, Result.SUCCESS, Result.SUCCESS, Result.SUCCESS)
        look()
    look()
    assert sorted(seen) == list(range(bound.first_task, bound.first_task + 40))


def test_all_that_has_begun_is_told_in_parts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latent.swarm.service.PAGE", 5)
    bound = site.bound(apart(20))
    run = site.driven(bound.workflow_id)
    site.queue(run, bound, *range(15))
    assert site.statuses(run) == {bound.first_task + n: "I" for n in range(15)}


# --- the end --------------------------------------------------------------------------------------------------------------


def test_a_run_ends(site: Site) -> None:
    """Done, when all tasks are; it can be said again, and nothing else can be said of it."""
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    site.queue(run, bound, 0)
    with pytest.raises(ConfigError, match="task 't0' is I"):
        site.ask(site.workflows.finish(run.id, RunStatus.DONE, ""))
    site.work(site.agent(), Result.SUCCESS)
    site.ask(site.workflows.finish(run.id, RunStatus.DONE, ""))
    site.ask(site.workflows.finish(run.id, RunStatus.DONE, ""))
    assert site.ask(site.workflows.workflow(bound.workflow_id)).status is WorkflowStatus.DONE
    assert site.beat(run) is RunStatus.DONE
    for asked in (
        site.workflows.finish(run.id, RunStatus.ERROR, ""),
        site.workflows.sync(run.id, None),
        site.workflows.sync(run.id, 0.0),
        site.workflows.settle(run.id, {}),
        site.workflows.detach(run.id),
        site.workflows.queue(run.id, Batch(array_id=bound.arrays[0], tasks=[], resources={}, level=0)),
    ):
        with pytest.raises(NotYourWorkflow, match=rf"workflow run {run.id} of somebody is over"):
            site.ask(asked)
    assert errors(site, site.workflows.finish(run.id, RunStatus.RUNNING, ""))
    assert errors(site, site.workflows.heartbeat(run.id, RunStatus.DONE, 45.0))
    assert errors(site, site.workflows.heartbeat(run.id, RunStatus.RUNNING, 0.0))


@pytest.mark.parametrize(("status", "after"), [(RunStatus.ERROR, "F"), (RunStatus.STOPPED, "H")])
def test_what_runs_is_ended_with_the_run(site: Site, status: RunStatus, after: str) -> None:
    bound = site.bound(apart(3))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    site.queue(run, bound, 0)
    agent.take()
    agent.begin()
    watching = agent.watch()
    site.ask(site.workflows.finish(run.id, status, "one failed"))
    site.advance(0)
    assert watching.called
    agent.finish(Result.CANCELLED)
    assert site.counts(bound.workflow_id) == {"E": 1, "G": 2}
    assert site.ask(site.workflows.workflow(bound.workflow_id)).status.value == after


def test_a_workflow_is_cancelled(site: Site) -> None:
    """Its builds end and its driver hears of it; again, it stays as it is. One that never ran is left alone."""
    bound = site.bound(apart(3))
    assert site.ask(site.workflows.cancel(bound.workflow_id, "no")).status is WorkflowStatus.QUEUED
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    site.queue(run, bound, 0, 1)
    agent.take()
    agent.begin()
    info = site.ask(site.workflows.cancel(bound.workflow_id, "too dear"))
    assert (info.status, info.run.status) == (WorkflowStatus.HALTED, RunStatus.STOPPED)
    agent.finish(Result.CANCELLED)
    site.advance(60)  # the other was offered to the agent, which does not take it
    assert site.beat(run) is RunStatus.STOPPED
    assert site.counts(bound.workflow_id) == {"E": 2, "G": 1}
    assert all(b.state is BuildState.FINISHED for b in site.harness.disk(builds.list_builds))
    assert site.ask(site.workflows.cancel(bound.workflow_id, "again")).run.status is RunStatus.STOPPED
    with pytest.raises(NotFound):
        site.ask(site.workflows.cancel(99, "no"))


def test_a_heartbeat_is_kept(site: Site) -> None:
    """What the driver says is what run and workflow are; by when it is to be heard of again is known."""
    bound = site.bound(apart(1))
    run = site.link(bound.workflow_id).run
    assert run is not None
    for said, workflow in (("B", "Q"), ("I", "I"), ("O", "O"), ("R", "R")):
        site.advance(1)
        assert site.beat(run, RunStatus(said), 77.0).value == said
        info = site.ask(site.workflows.workflow(bound.workflow_id))
        assert (info.status.value, info.run.status.value) == (workflow, said)
        assert (info.run.heartbeat_at, info.run.report_by) == (site.harness.clock.seconds(), site.harness.clock.seconds() + 77)
    with pytest.raises(NotFound, match="there is no workflow run 99"):
        site.ask(site.workflows.heartbeat(99, RunStatus.RUNNING, 1.0))
