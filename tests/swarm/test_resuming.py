"""Who drives a workflow, and what becomes of what runs when somebody else takes it over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from latent.errors import NotFound, NotResumable, NotYourWorkflow
from latent.model import BuildState, Result
from latent.store import builds
from latent.swarm.keeping import LINKED_PATIENCE
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import Bound, Resume, RunInfo
from latent.testing.harness import SteppedAgent
from tests.swarm.site import Site, apart, definition


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def status(site: Site, bound: Bound) -> tuple[str, str]:
    """The workflow's and its last run's."""
    info = site.ask(site.workflows.workflow(bound.workflow_id))
    return info.status.value, info.run.status.value


def half_way(site: Site) -> tuple[Bound, RunInfo, SteppedAgent]:
    """Six tasks: done, running, failed, launched, and two registering."""
    bound = site.bound(apart(6))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    site.queue(run, bound, 0, 2)
    site.work(agent, Result.SUCCESS, Result.FAILURE)
    site.queue(run, bound, 1)
    agent.take()
    agent.begin()
    site.queue(run, bound, 3)
    assert site.counts(bound.workflow_id) == {"D": 1, "R": 1, "E": 1, "O": 1, "G": 2}
    return bound, run, agent


def wait(site: Site, agent: SteppedAgent, run: RunInfo | None = None, *, runs: bool = True) -> None:
    """Until a lease that was offered and not taken is given up. The driver of ``run`` goes on, and what ``runs`` too."""
    for _ in range(60):
        site.advance(1)
        if runs:
            agent.renew()
        if run is not None:
            site.beat(run)


# --- the first driver -----------------------------------------------------------------------------------------------------


def test_a_new_workflow_gets_a_run(site: Site) -> None:
    """The same again, by the same driver, is the same run: the answer was lost."""
    bound = site.bound(apart(1))
    run = site.link(bound.workflow_id).run
    assert run is not None
    assert (run.status, run.driver, run.report_by) == (RunStatus.LINKED, "somebody", run.created_at + LINKED_PATIENCE)
    assert site.link(bound.workflow_id).run == run
    assert site.link(bound.workflow_id, resume=Resume.COLD).run == run
    assert status(site, bound) == ("Q", "L")


def test_a_workflow_that_is_not_whole_is_not_driven(site: Site) -> None:
    bound = site.ask(site.workflows.bind(definition(3)))
    site.ask(site.workflows.add_tasks(bound.workflow_id, 0, apart(2)))
    for resume in (None, Resume.HOT):
        with pytest.raises(NotResumable, match=r"has 2 of its 3 tasks.*run its file again"):
            site.link(bound.workflow_id, resume=resume)
    with pytest.raises(NotFound):
        site.link(99)


def test_a_second_driver_is_refused(site: Site) -> None:
    """It is told who drives, and how to take it over."""
    bound = site.bound(apart(1))
    run = site.link(bound.workflow_id, "the first").run
    with pytest.raises(NotResumable, match=rf"is driven by the first.*--resume {bound.workflow_id} --hot, or --cold"):
        site.link(bound.workflow_id, "the second")
    assert run is not None
    site.beat(run)
    with pytest.raises(NotResumable, match="is driven by the first"):
        site.link(bound.workflow_id, "the first")


def test_what_was_driven_is_resumed_in_so_many_words(site: Site) -> None:
    """A run that has ended, in whatever way, is gone on with only by who says how; a finished one by nobody."""
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    site.ask(site.workflows.detach(run.id))
    assert status(site, bound) == ("H", "T")
    with pytest.raises(NotResumable, match="was driven before, by somebody, and is not finished"):
        site.link(bound.workflow_id)
    run = site.driven(bound.workflow_id, "another", Resume.HOT)
    site.queue(run, bound, 0)
    site.work(site.agent(), Result.SUCCESS)
    site.ask(site.workflows.finish(run.id, RunStatus.DONE, ""))
    for resume in (None, Resume.HOT, Resume.COLD):
        with pytest.raises(NotResumable, match="finished, there is nothing to resume"):
            site.link(bound.workflow_id, resume=resume)


# --- taking over ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", Resume)
def test_a_live_driver_lets_go_first(site: Site, resume: Resume) -> None:
    """Cold ends all builds, hot keeps those that run; then all but what is done, or runs on, begins anew."""
    bound, run, agent = half_way(site)
    cold = resume is Resume.COLD
    watching = agent.watch()
    answer = site.link(bound.workflow_id, "another", resume)
    assert answer.run is None
    assert "driver somebody to let go" in answer.waits_for
    letter = RunStatus.COLD_RESUME if cold else RunStatus.HOT_RESUME
    assert site.beat(run) is letter
    assert site.ask(site.workflows.sync(run.id, None)).status is letter
    assert [change.status.value for change in site.queue(run, bound, 4)] == ["G"]
    assert watching.called is cold
    if cold:
        agent.finish(Result.CANCELLED)
    assert site.link(bound.workflow_id, "another", resume).waits_for == "1 build to end, and driver somebody to let go"
    wait(site, agent, run, runs=not cold)
    assert site.link(bound.workflow_id, "another", resume).waits_for == "driver somebody to let go"
    site.ask(site.workflows.finish(run.id, RunStatus.TERMINATED, "somebody else resumes it"))
    new = site.link(bound.workflow_id, "another", resume).run
    assert new is not None
    assert new.id > run.id
    assert site.counts(bound.workflow_id) == ({"D": 1, "G": 5} if cold else {"D": 1, "R": 1, "G": 4})
    rows = site.ask(site.workflows.tasks(bound.workflow_id, 0, 10))
    assert [row.attempts for row in rows] == [0 if cold else 1, 0, 0, 0, 0]
    with pytest.raises(NotYourWorkflow):
        site.ask(site.workflows.sync(run.id, None))
    site.beat(new)
    if cold:
        agent = site.agent()  # the one before was silent too long
    else:
        agent.finish()
    site.queue(new, bound, *([1] if cold else []), 2, 3, 4, 5)
    site.work(agent, *[Result.SUCCESS] * (5 if cold else 4))
    assert site.counts(bound.workflow_id) == {"D": 6}
    site.ask(site.workflows.finish(new.id, RunStatus.DONE, ""))
    # Each attempt of each run had one build; what was done, or ran on, had one in all.
    made = [build for build in site.harness.disk(builds.list_builds) if build.state is BuildState.FINISHED]
    assert len(made) == (9 if cold else 8)


@pytest.mark.parametrize("resume", Resume)
def test_a_dead_driver_need_not_let_go(site: Site, resume: Resume) -> None:
    """Its time is over: whoever comes next waits for builds alone, and not for the reaper."""
    bound, run, agent = half_way(site)
    site.beat(run, seconds=1.0)
    site.advance(2)
    answer = site.link(bound.workflow_id, "another", resume)
    while answer.run is None:
        assert "driver" not in answer.waits_for
        if resume is Resume.COLD:
            agent.finish(Result.CANCELLED)
        wait(site, agent, runs=resume is Resume.HOT)
        answer = site.link(bound.workflow_id, "another", resume)
    assert site.counts(bound.workflow_id) == ({"D": 1, "G": 5} if resume is Resume.COLD else {"D": 1, "R": 1, "G": 4})
    old = site.harness.disk(lambda conn: conn.exec_driver_sql("SELECT status FROM workflow_runs ORDER BY id").fetchall())
    assert [row[0] for row in old] == ["E", "L"]


def test_a_driver_that_never_lets_go_is_given_up(site: Site) -> None:
    """It was asked to, and is not heard of: TERMINATED, and nothing that health would tell."""
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    assert site.link(bound.workflow_id, "another", Resume.HOT).run is None
    site.advance(100)
    assert status(site, bound) == ("H", "T")
    assert site.workflows.health() == []
    assert site.beat(run) is RunStatus.TERMINATED
    assert site.link(bound.workflow_id, "another", Resume.HOT).run is not None


def test_the_last_word_counts(site: Site) -> None:
    """Somebody wants it hot, and then cold after all."""
    bound, run, agent = half_way(site)
    site.link(bound.workflow_id, "another", Resume.HOT)
    assert site.beat(run) is RunStatus.HOT_RESUME
    site.link(bound.workflow_id, "another", Resume.COLD)
    assert site.beat(run) is RunStatus.COLD_RESUME
    agent.finish(Result.CANCELLED)


def test_a_resume_goes_on_after_a_crash(site: Site) -> None:
    """The controller dies at every step of one; what was asked for stays asked for."""
    bound, run, agent = half_way(site)
    assert site.link(bound.workflow_id, "another", Resume.COLD).run is None
    site.restart()
    agent.come_back()
    assert site.beat(run) is RunStatus.COLD_RESUME
    assert agent.watch().called
    agent.finish(Result.CANCELLED)
    wait(site, agent, run, runs=False)
    site.restart()
    agent.come_back()
    site.ask(site.workflows.finish(run.id, RunStatus.TERMINATED, ""))
    site.restart()
    new = site.link(bound.workflow_id, "another", Resume.COLD).run
    assert new is not None
    site.restart()
    assert site.link(bound.workflow_id, "another", Resume.COLD).run == new
    assert site.counts(bound.workflow_id) == {"D": 1, "G": 5}


def test_what_a_task_needs_is_remembered(site: Site) -> None:
    """A task that was given more begins anew with that, not with what was not enough."""
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    site.queue(run, bound, 0, resources={"memory": 1})
    site.work(site.agent(), Result.FAILURE, exit_code=137)
    site.counts(bound.workflow_id)
    site.ask(site.workflows.settle(run.id, {bound.first_task: (TaskStatus.ADJUSTING_RESOURCES, {"memory": 2}, 0)}))
    site.ask(site.workflows.detach(run.id))
    site.driven(bound.workflow_id, "another", Resume.COLD)
    (row,) = site.ask(site.workflows.tasks(bound.workflow_id, 0, 1))
    assert (row.status.value, row.attempts, row.resources) == ("G", 0, {"memory": 2})


def test_a_detached_workflow_goes_on(site: Site) -> None:
    """Its builds are carried out while nobody drives it, and a hot resume finds them done."""
    bound = site.bound(apart(2))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    site.queue(run, bound, 0, 1)
    agent.take()
    agent.begin()
    site.ask(site.workflows.detach(run.id))
    site.ask(site.workflows.detach(run.id))
    agent.finish()
    site.work(agent, Result.SUCCESS)
    assert site.counts(bound.workflow_id) == {"D": 2}
    assert site.link(bound.workflow_id, "another", Resume.HOT).run is not None


# --- the reaper -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "after"), [("L", "A"), ("B", "A"), ("I", "E"), ("O", "E"), ("R", "E")])
def test_abandoned_runs_end(site: Site, said: str, after: str) -> None:
    """Not before their time; the workflow can be resumed, and health says that nobody drives it."""
    bound = site.bound(apart(1))
    run = site.link(bound.workflow_id).run
    assert run is not None
    patience = LINKED_PATIENCE
    if said != "L":
        patience = 300.0
        site.beat(run, RunStatus(said), patience)
    site.advance(patience - 1)
    assert status(site, bound)[1] == said
    site.advance(31)
    assert status(site, bound) == ("H", after)
    (item,) = site.workflows.health()
    assert (item.subject, item.ok) == (f"workflow {bound.workflow_id}", False)
    assert "its driver somebody was not heard of for" in item.message
    assert f"--resume {bound.workflow_id} --hot" in item.remedy
    assert site.beat(run).value == after


def test_what_runs_of_an_abandoned_run_goes_on(site: Site) -> None:
    """Health says how much, until somebody has seen to the workflow."""
    bound, _, agent = half_way(site)
    wait(site, agent)
    wait(site, agent)
    assert status(site, bound) == ("H", "E")
    assert [item.message.endswith("; 1 of its builds go on") for item in site.workflows.health()] == [False]
    assert "of its builds go on" in site.workflows.health()[0].message
    site.restart()
    agent.come_back()
    assert len(site.workflows.health()) == 1
    site.ask(site.workflows.cancel(bound.workflow_id, "never mind"))
    assert site.workflows.health() == []
    agent.finish(Result.CANCELLED)


def test_a_controller_that_was_away_gives_drivers_their_time_again(site: Site) -> None:
    """It was not the driver that could not be heard."""
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    site.advance(40)
    site.crash()
    site.harness.clock.rightNow += 1000
    site.restart()
    site.advance(35)
    assert status(site, bound)[1] == "R"
    with pytest.raises(NotResumable, match="is driven by somebody"):
        site.link(bound.workflow_id, "another")
    assert site.beat(run) is RunStatus.RUNNING
    site.advance(100)
    assert status(site, bound) == (WorkflowStatus.HALTED.value, "E")


def test_a_clock_that_is_set_forward_gives_drivers_their_time_again(site: Site) -> None:
    """The hour that it was set by has not passed."""
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    site.harness.clock.rightNow += 3600
    site.advance(31)
    assert status(site, bound)[1] == "R"
    site.beat(run)
    site.advance(100)
    assert status(site, bound)[1] == "E"


def test_runs_are_counted(site: Site) -> None:
    """For the metrics."""
    bound = site.bound(apart(1))
    run = site.driven(bound.workflow_id)
    site.queue(run, bound, 0)
    site.advance(30)
    assert site.workflows.run_counts() == {(("status", "running"),): 1.0}
    assert site.workflows.queued_count() == {(): 1.0}
