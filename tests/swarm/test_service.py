"""Workflows in the controller: bound once, each attempt carried out once, followed by asking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from latent.model import Result
from tests.swarm.site import Site, apart


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def test_a_task_is_carried_out(site: Site) -> None:
    bound = site.bound(apart(2))
    run = site.driven(bound.workflow_id)
    agent = site.agent()
    first, second = bound.first_task, bound.first_task + 1
    (queued,) = site.queue(run, bound, 0)
    assert (queued.status.value, queued.attempts) == ("I", 1)
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
    assert (change.id, change.status.value, change.trouble.value, change.reason) == (second, "E", "failure", "exit code 2")
