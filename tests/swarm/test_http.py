"""The requester over HTTP, with a real controller on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from latent.errors import ConfigError, ControllerAway, NotFound, NotResumable, NotYourWorkflow, WorkflowError
from latent.swarm.http import HttpRequester
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import Batch, Resume, TaskDefinition
from tests.swarm.served import Served
from tests.swarm.site import apart, chain, definition


@pytest.fixture(params=["socket", "url"])
def served(request: Any, tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path, request.param)
    pytest_twisted.blockon(ensureDeferred(made.start()))
    yield made
    pytest_twisted.blockon(ensureDeferred(made.stop()))


@pytest.fixture
def requester(served: Served) -> Iterator[HttpRequester]:
    made = served.requester(patience=20.0)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


async def followed(requester: HttpRequester, run_id: int, since: float, number: int) -> dict[int, str]:
    """Sync until so many tasks are D or E."""
    over: dict[int, str] = {}
    while len(over) < number:
        await deferLater(requester._reactor, 0.01)
        delta = await requester.sync(run_id, since)
        since = delta.now
        over.update({change.id: change.status.value for change in delta.changes if change.status.value in "DE"})
    return over


@pytest_twisted.ensureDeferred
async def test_a_workflow_is_driven(requester: HttpRequester) -> None:
    """All that a driver asks is answered as in process."""
    tasks = [*chain(3), TaskDefinition(0, "ünique", (), 2, {"what": ["ä", None]}, {"os": "x"}, {"memory": 1.5})]
    bound = await requester.bind(definition(4))
    assert await requester.add_tasks(bound.workflow_id, 0, tasks) == await requester.bind(definition(4))
    first = bound.first_task
    rows = await requester.tasks(bound.workflow_id, first, 10)
    assert [(row.id, row.name, row.status, row.resources) for row in rows] == [
        (first + 1, "t1", TaskStatus.REGISTERING, {}),
        (first + 2, "t2", TaskStatus.REGISTERING, {}),
        (first + 3, "ünique", TaskStatus.REGISTERING, {"memory": 1.5}),
    ]
    ids = [first, first + 2]
    assert await requester.downstream(bound.workflow_id, ids) == {first: [first + 1], first + 2: []}
    run = (await requester.link(bound.workflow_id, "somebody")).run
    assert run is not None
    assert await requester.heartbeat(run.id, RunStatus.RUNNING, 45.0) is RunStatus.RUNNING
    info = await requester.workflow(bound.workflow_id)
    assert (info.status, info.arrays[0].counts) == (WorkflowStatus.RUNNING, {TaskStatus.REGISTERING: 4})
    batch = Batch(array_id=bound.arrays[0], tasks=[(first, 1), (first + 1, 1)], resources={"timeout": 9}, level=0)
    changes = await requester.queue(run.id, batch)
    assert {change.status for change in changes} == {TaskStatus.INSTANTIATED}
    assert await followed(requester, run.id, info.now, 2) == {first: "D", first + 1: "D"}
    await requester.settle(run.id, {first + 3: (TaskStatus.ADJUSTING_RESOURCES, {"memory": 3}, 0)})
    whole = await requester.sync(run.id, None)
    assert {change.id: change.status.value for change in whole.changes} == {first: "D", first + 1: "D", first + 3: "A"}
    await requester.detach(run.id)
    assert [w.status for w in await requester.workflows()] == [WorkflowStatus.HALTED]
    again = (await requester.link(bound.workflow_id, "another", Resume.HOT)).run
    assert again is not None
    await requester.finish(again.id, RunStatus.ERROR, "enough")
    assert (await requester.cancel(bound.workflow_id, "enough")).status is WorkflowStatus.HALTED


@pytest_twisted.ensureDeferred
async def test_errors_are_what_they_are_in_process(requester: HttpRequester) -> None:
    with pytest.raises(ConfigError, match="no builder is called 'x'"):
        await requester.bind(definition(1, definition(1).arrays[0].__class__(name="a", template="x")))
    with pytest.raises(NotFound, match="there is no workflow 77; see"):
        await requester.workflow(77)
    bound = await requester.bind(definition(2))
    with pytest.raises(ConfigError) as wrong:
        await requester.add_tasks(bound.workflow_id, 0, [TaskDefinition(5, "t"), TaskDefinition(0, "u", (9,))])
    assert len(wrong.value.errors) == 2
    with pytest.raises(NotResumable, match="0 of its 2 tasks"):
        await requester.link(bound.workflow_id, "somebody")
    await requester.add_tasks(bound.workflow_id, 0, apart(2))
    run = (await requester.link(bound.workflow_id, "somebody")).run
    assert run is not None
    await requester.cancel(bound.workflow_id, "enough")
    with pytest.raises(NotYourWorkflow, match="it was cancelled: enough"):
        await requester.sync(run.id, None)


@pytest_twisted.ensureDeferred
async def test_a_controller_that_comes_back(served: Served, requester: HttpRequester) -> None:
    """Calls that are made while it is away are answered when it is back, wherever it listens then."""
    bound = await requester.bind(definition(3))
    await requester.add_tasks(bound.workflow_id, 0, apart(3))
    run = (await requester.link(bound.workflow_id, "somebody")).run
    assert run is not None
    now = (await requester.workflow(bound.workflow_id)).now
    await served.stop()
    first = bound.first_task
    batch = Batch(array_id=bound.arrays[0], tasks=[(first + n, 1) for n in range(3)], resources={}, level=0)
    queued = Deferred.fromCoroutine(requester.queue(run.id, batch))
    beat = Deferred.fromCoroutine(requester.heartbeat(run.id, RunStatus.RUNNING, 45.0))
    await deferLater(served.reactor, 0.05)
    await served.start()
    await gatherResults([queued, beat])
    assert await followed(requester, run.id, now, 3) == {first + n: "D" for n in range(3)}


@pytest_twisted.ensureDeferred
async def test_patience_has_an_end(served: Served) -> None:
    await served.stop()
    requester = served.requester(patience=0.2)
    with pytest.raises(ControllerAway, match=r"no controller has answered for .*start the controller, then resume"):
        await requester.workflow(1)
    await requester.close()


@pytest_twisted.ensureDeferred
async def test_a_wrong_token_is_said_at_once(served: Served, requester: HttpRequester) -> None:
    served.token = "another"
    with pytest.raises(WorkflowError, match="the API token is missing or wrong"):
        await requester.workflow(1)


@pytest_twisted.ensureDeferred
async def test_large_calls_are_divided(requester: HttpRequester) -> None:
    """More than one request carries: tasks with long properties."""
    tasks = apart(300, properties={"text": "x" * 10_000})
    bound = await requester.bind(definition(300))
    assert (await requester.add_tasks(bound.workflow_id, 0, tasks)).tasks == 300


@pytest_twisted.ensureDeferred
async def test_a_call_can_be_given_up(served: Served, requester: HttpRequester) -> None:
    """Whoever waits for a controller that is away may stop to do so."""
    from twisted.internet.defer import CancelledError

    await served.stop()
    waiting = Deferred.fromCoroutine(requester.workflow(1))
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
