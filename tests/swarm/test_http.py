"""The requester over HTTP, with a real controller on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from latent.errors import ConfigError, ControllerAway, NotFound, NotResumable, NotYourWorkflow, WorkflowError
from latent.swarm.http import Address, HttpRequester
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
    await served.stop()
    waiting = Deferred.fromCoroutine(requester.workflow(1))
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting


# --- something else that answers --------------------------------------------------------------------------------------------


class Script(Protocol):
    """Says what its factory has for this connection as soon as it is asked, and hangs up; None: says nothing, ever."""

    factory: Any

    def dataReceived(self, data: bytes) -> None:
        said = self.factory.said.pop(0) if self.factory.said else None
        if said is not None:
            self.transport.write(said)
            self.transport.loseConnection()


def answer(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 " + status.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Any]:
    """A requester, and the list of what it is answered with."""
    from twisted.internet import reactor

    listening: Any = reactor
    factory: Any = Factory.forProtocol(Script)
    factory.said = []
    port = listening.listenUNIX(str(tmp_path / "s"), factory)
    requester = HttpRequester(reactor, lambda: Address("http://latent", "t", str(tmp_path / "s")), patience=20.0)
    yield requester, factory.said
    pytest_twisted.blockon(ensureDeferred(requester.close()))
    pytest_twisted.blockon(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut_short_is_asked_for_again(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hung up on at once, in the head and in the body, not answered at all, or told to wait: the call is made again."""
    monkeypatch.setattr("latent.swarm.http.ANSWER", 0.2)
    monkeypatch.setattr("latent.swarm.http.FIRST_DELAY", 0.001)
    requester, said = scripted
    whole = answer("200 OK", b'{"status": "H"}')
    said += [b"", whole[:9], whole[:-3], None, answer("503 No", b'{"error": "starting", "remedy": "wait"}'), whole]
    assert await requester.heartbeat(1, RunStatus.RUNNING, 45.0) is RunStatus.HOT_RESUME
    assert said == []


@pytest_twisted.ensureDeferred
async def test_what_is_no_controller_is_named(scripted: Any) -> None:
    requester, said = scripted
    for body in (b"<html>", b"[]", b"\xff"):
        said.append(answer("200 OK", body))
        with pytest.raises(WorkflowError, match="is no controller; check the address"):
            await requester.detach(1)
    said.append(answer("500 Oh", b'{"error": "the controller failed: KeyError", "remedy": "see the log"}'))
    with pytest.raises(WorkflowError, match="the controller failed: KeyError; see the log"):
        await requester.detach(1)


@pytest_twisted.ensureDeferred
async def test_a_call_under_way_can_be_given_up(scripted: Any) -> None:
    """While it waits for the answer, and while it connects."""
    requester, said = scripted
    said.append(None)
    waiting = Deferred.fromCoroutine(requester.detach(1))
    while said:
        await deferLater(requester._reactor, 0.001)
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    waiting = Deferred.fromCoroutine(requester.detach(1))
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
