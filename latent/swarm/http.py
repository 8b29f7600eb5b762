"""The requester of a driver that is a process of its own: over HTTP, to a controller that may be away for a while."""

# mypy: disable-error-code="no-untyped-call"
# twisted.web.client has few annotations.

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet import error as net
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.task import deferLater
from twisted.web._newclient import RequestNotSent
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer  # type: ignore[import-untyped]  # it has no annotations

from latent.errors import (
    ConfigError,
    ControllerAway,
    EmptyWorkflowError,
    LatentError,
    NotFound,
    NotResumable,
    NotYourWorkflow,
    WorkflowError,
)
from latent.model import JSON
from latent.swarm import documents, reading
from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import (
    Batch,
    Bound,
    Definition,
    Delta,
    Linked,
    Resources,
    Resume,
    TaskChange,
    TaskDefinition,
    TaskRow,
    WorkflowInfo,
)

PATIENCE = 600.0
"""Seconds for which a controller may be away before `ControllerAway` is raised."""

ANSWER = 60.0
"""Seconds that the controller has for an answer, before it is asked again."""

FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0

IDLE = 20
"""Seconds for which a connection that nothing is asked over is kept. The controller closes it after 60."""

MOST_BYTES = 900_000
"""What the controller takes in one request, with room to spare."""

PAGE = 20_000
"""Tasks in one answer where all are wanted."""

NEVER = 1e300
"""Nothing has changed since then, in POSIX seconds."""

KINDS = {kind.__name__: kind for kind in (NotResumable, NotYourWorkflow, EmptyWorkflowError)}

LOST = (
    net.ConnectError,
    net.ConnectionLost,
    net.ConnectionDone,
    net.ConnectionAborted,
    net.ConnectionClosed,
    net.DNSLookupError,
    net.TimeoutError,
    PotentialDataLoss,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
)
"""The controller is away, or was when it was to answer."""

CANCELLED = (CancelledError, net.ConnectingCancelledError)


@frozen
class Address:
    """Where a controller listens. ``socket``: the path of a unix socket, used in place of the URL's host and port."""

    url: str
    token: str
    socket: str | None = None


class _Away(Exception):
    """No answer; the next try may get one."""


class HttpRequester:
    """See `latent.swarm.requester.Requester`. ``find``: where the controller is now, None if there is none. It is asked before
    each try, since a controller that comes back may be elsewhere. `close` it at the end.

    ``patience``: seconds for which a call goes on asking a controller that does not answer; then it raises `ControllerAway`.
    """

    def __init__(self, reactor: Any, find: Callable[[], Address | None], *, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._reactor = reactor
        self._find = find
        self._socket: str | None = None
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.cachedConnectionTimeout = IDLE
        self._pool.retryAutomatically = False
        self._client = HTTPClient(Agent.usingEndpointFactory(reactor, _Endpoints(reactor, lambda: self._socket), self._pool))

    async def close(self) -> None:
        """Drop the connections that are kept."""
        await self._pool.closeCachedConnections()

    # --- what a driver asks ---------------------------------------------------------------------------------------------------

    async def bind(self, definition: Definition) -> Bound:
        return documents.read_bound(await self._ask("POST", "workflows", documents.definition(definition)))

    async def add_tasks(self, workflow_id: int, first: int, tasks: Sequence[TaskDefinition]) -> Bound:
        path = f"workflows/{workflow_id}/tasks"
        bound = None
        for part in _parts([json.dumps(documents.task(task)) for task in tasks]):
            body = f'{{"first": {first}, "tasks": [{",".join(part)}]}}'
            bound = documents.read_bound(await self._ask("POST", path, body.encode()))
            first += len(part)
        if bound is None:
            bound = documents.read_bound(await self._ask("POST", path, {"first": first, "tasks": []}))
        return bound

    async def workflow(self, workflow_id: int) -> WorkflowInfo:
        return documents.read_workflow(await self._ask("GET", f"workflows/{workflow_id}"))

    async def workflows(self, limit: int = 50) -> Sequence[WorkflowInfo]:
        answer = await self._ask("GET", f"workflows?limit={limit}")
        return reading.listed(answer.get("workflows"), "workflows", documents.read_workflow)

    async def link(self, workflow_id: int, driver: str, resume: Resume | None = None) -> Linked:
        asked = {"driver": driver, "resume": None if resume is None else resume.value}
        return documents.read_linked(await self._ask("POST", f"workflows/{workflow_id}/link", asked))

    async def heartbeat(self, run_id: int, status: RunStatus, next_report_increment: float) -> RunStatus:
        said = {"status": status.value, "next_report_increment": next_report_increment}
        answer = await self._ask("POST", f"workflow-runs/{run_id}/heartbeat", said)
        return reading.one_of(answer.get("status"), "status", RunStatus)

    async def tasks(
        self, workflow_id: int, after: int, limit: int, statuses: Collection[TaskStatus] | None = None
    ) -> Sequence[TaskRow]:
        if statuses is not None and not statuses:
            return []
        letters = "" if statuses is None else "&status=" + "".join(status.value for status in statuses)
        return documents.read_rows(await self._ask("GET", f"workflows/{workflow_id}/tasks?after={after}&limit={limit}{letters}"))

    async def downstream(self, workflow_id: int, ids: Sequence[int]) -> Mapping[int, Sequence[int]]:
        found: dict[int, Sequence[int]] = {}
        for part in _parts([str(id) for id in ids]):
            body = f'{{"ids": [{",".join(part)}]}}'
            answer = await self._ask("POST", f"workflows/{workflow_id}/downstream", body.encode())
            found.update(answer["downstream"])
        return found

    async def queue(self, run_id: int, batch: Batch) -> Sequence[TaskChange]:
        return documents.read_changes(await self._ask("POST", f"workflow-runs/{run_id}/queue", documents.batch(batch)))

    async def settle(self, run_id: int, changes: Mapping[int, tuple[TaskStatus, Resources, int]]) -> None:
        for part in _parts([json.dumps(one) for one in documents.settlement(changes)]):
            body = f'{{"changes": [{",".join(part)}]}}'
            await self._ask("POST", f"workflow-runs/{run_id}/settle", body.encode())

    async def sync(self, run_id: int, since: float | None) -> Delta:
        asked = {"since": NEVER if since is None else since}
        delta = documents.read_delta(await self._ask("POST", f"workflow-runs/{run_id}/sync", asked))
        if since is not None:
            return delta
        pages = [await self._begun(run_id, 0)]
        while len(pages[-1]) == PAGE:
            pages.append(await self._begun(run_id, pages[-1][-1].id))
        return Delta(now=delta.now, status=delta.status, changes=list(chain.from_iterable(pages)))

    async def _begun(self, run_id: int, after: int) -> list[TaskChange]:
        return documents.read_changes(await self._ask("GET", f"workflow-runs/{run_id}/tasks?after={after}&limit={PAGE}"))

    async def finish(self, run_id: int, status: RunStatus, reason: str) -> None:
        await self._ask("POST", f"workflow-runs/{run_id}/finish", {"status": status.value, "reason": reason})

    async def detach(self, run_id: int) -> None:
        await self._ask("POST", f"workflow-runs/{run_id}/detach", {})

    async def cancel(self, workflow_id: int, reason: str) -> WorkflowInfo:
        return documents.read_workflow(await self._ask("POST", f"workflows/{workflow_id}/cancel", {"reason": reason}))

    # --- one call -------------------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, body: JSON | bytes = None) -> Mapping[str, JSON]:
        """The document that is answered, sooner or later. A call that was carried out and whose answer is lost is made again."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        began, delay = self._reactor.seconds(), FIRST_DELAY
        while True:
            try:
                return await self._once(method, path, data)
            except _Away as away:
                waited = self._reactor.seconds() - began
                if waited >= self.patience:
                    raise ControllerAway(
                        f"no controller has answered for {waited:.0f} s ({away}); "
                        "what runs goes on without it: start the controller, then resume the workflow"
                    ) from away
            await deferLater(self._reactor, delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def _once(self, method: str, path: str, data: bytes | None) -> Mapping[str, JSON]:
        address = self._find()
        if address is None:
            raise _Away("none runs")
        self._socket = address.socket
        headers = Headers({b"Authorization": [b"Bearer " + address.token.encode()]})
        if data is not None:
            headers.setRawHeaders(b"Content-Type", [b"application/json"])
        status, content = await self._within(
            Deferred.fromCoroutine(self._exchange(method, f"{address.url.rstrip('/')}/api/v1/{path}", headers, data))
        )
        try:
            doc = json.loads(content)
        except ValueError:
            doc = None
        if not isinstance(doc, dict):
            raise WorkflowError(f"what answers at {address.socket or address.url} is no controller; check the address")
        if status >= 400:
            _refuse(status, doc)
        return doc

    async def _exchange(self, method: str, url: str, headers: Headers, data: bytes | None) -> tuple[int, bytes]:
        response = await self._client.request(method, url, headers=headers, data=data, allow_redirects=False, unbuffered=True)
        return response.code, await response.content()

    async def _within(self, exchange: Deferred[tuple[int, bytes]]) -> tuple[int, bytes]:
        """Raises _Away when there is no answer in time, or none at all."""
        late = []

        def give_up() -> None:
            late.append(True)
            exchange.cancel()

        timer = self._reactor.callLater(ANSWER, give_up)
        try:
            return await exchange
        except (*CANCELLED, *LOST) as error:
            if late:
                raise _Away(f"it did not answer within {ANSWER:g} s") from None
            if _is_cancelled(error):
                raise CancelledError from None
            raise _Away(_words(error)) from None
        finally:
            if timer.active():
                timer.cancel()


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """To the unix socket where there is one, else to where the URL says."""

    def __init__(self, reactor: Any, socket: Callable[[], str | None]) -> None:
        self._reactor = reactor
        self._socket = socket

    def endpointForURI(self, uri: Any) -> Any:
        path = self._socket()
        if path is not None:
            return UNIXClientEndpoint(self._reactor, path)
        plain: Any = HostnameEndpoint(self._reactor, uri.host, uri.port)
        if uri.scheme != b"https":
            return plain
        return wrapClientTLS(BrowserLikePolicyForHTTPS().creatorForNetloc(uri.host, uri.port), plain)


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as one request may carry; one at least."""
    first = size = 0
    for position, text in enumerate(texts):
        if position > first and size + len(text) > MOST_BYTES:
            yield texts[first:position]
            first, size = position, 0
        size += len(text) + 1
    if first < len(texts):
        yield texts[first:]


def _refuse(status: int, doc: Mapping[str, JSON]) -> NoReturn:
    """Raise what the controller raised, or _Away if it would be another answer later."""
    message, remedy = str(doc.get("error")), str(doc.get("remedy") or "")
    whole = f"{message}; {remedy}" if remedy else message
    if status in (502, 503, 504):
        raise _Away(message)
    kind: type[LatentError] = KINDS.get(str(doc.get("kind")), WorkflowError)
    if status == 404:
        kind = NotFound
    elif status == 400:
        errors = doc.get("errors")
        raise ConfigError([str(one) for one in errors] if isinstance(errors, list) and errors else whole)
    raise kind(whole)


def _is_cancelled(error: BaseException) -> bool:
    """Whether somebody has cancelled the call, rather than the connection been lost."""
    reasons = getattr(error, "reasons", None) or []
    return isinstance(error, CANCELLED) or any(reason.check(*CANCELLED) for reason in reasons)


def _words(error: BaseException) -> str:
    reasons = getattr(error, "reasons", None) or []
    inner = [reason.value for reason in reasons if not reason.check(net.ConnectionDone)] or [error]
    return "; ".join(str(one) or type(one).__name__ for one in inner)
