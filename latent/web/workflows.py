"""The routes of the HTTP API for workflows: what `latent.swarm.http.HttpRequester` calls, one for each of its methods."""

# mypy: disable-error-code="no-untyped-call"
# twisted.web.http.Request has no annotations.

from __future__ import annotations

from collections.abc import Mapping

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.server import Request

from latent.model import JSON
from latent.swarm import documents, reading
from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import Resume
from latent.web import answering, parse
from latent.web.answering import body, document, kept
from latent.web.facade import WorkflowsFacade
from latent.web.parse import ApiError, BadRequest

PREFIX = b"/api/v1/workflow"
"""What the paths of these routes begin with, and no others."""

MOST_TASKS = 200_000
"""Tasks in one answer."""

LONGEST_REASON = 10_000


class WorkflowApi:
    app = Klein()

    def __init__(self, workflows: WorkflowsFacade) -> None:
        self._workflows = workflows

    # --- workflows ------------------------------------------------------------------------------------------------------------

    @app.route("/api/v1/workflows", methods=["POST"])
    async def bind(self, request: Request) -> bytes:
        doc = parse.body(body(request), ["name", "digest", "tasks", "arrays", "max_running", "fail_fast"])
        return document(request, documents.bound(await self._workflows.bind(documents.read_definition(doc))))

    @app.route("/api/v1/workflows", methods=["GET"])
    async def workflows(self, request: Request) -> bytes:
        limit = parse.whole(parse.query(request.args, ["limit"]), "limit", 50)
        found = await self._workflows.workflows(limit)
        return document(request, {"workflows": [documents.workflow(one) for one in found]})

    @app.route("/api/v1/workflows/<number>", methods=["GET"])
    async def workflow(self, request: Request, number: str) -> bytes:
        parse.query(request.args, [])
        return document(request, documents.workflow(await self._workflows.workflow(_id(number))))

    @app.route("/api/v1/workflows/<number>/tasks", methods=["POST"])
    async def add_tasks(self, request: Request, number: str) -> bytes:
        doc = _fields(request, "first", "tasks")
        tasks = reading.listed(doc["tasks"], "tasks", documents.read_task)
        bound = await self._workflows.add_tasks(_id(number), reading.whole(doc["first"], "first"), tasks)
        return document(request, documents.bound(bound))

    @app.route("/api/v1/workflows/<number>/tasks", methods=["GET"])
    async def tasks(self, request: Request, number: str) -> bytes:
        found = parse.query(request.args, ["after", "limit", "status"])
        letters = found.get("status")
        statuses = None if letters is None else [reading.one_of(letter, "status", TaskStatus) for letter in letters]
        after, limit = _page(found)
        return document(request, documents.rows(await self._workflows.tasks(_id(number), after, limit, statuses)))

    @app.route("/api/v1/workflows/<number>/downstream", methods=["POST"])
    async def downstream(self, request: Request, number: str) -> bytes:
        ids = reading.ids(_fields(request, "ids")["ids"], "ids")
        if len(ids) > MOST_TASKS:
            raise BadRequest(f"{len(ids)} tasks are asked for", f"ask for {MOST_TASKS} at a time at most")
        request.setHeader("Content-Type", "application/json")
        # As the store has it: to read it, only to write it again, would cost more than all the rest.
        return b'{"downstream": ' + (await self._workflows.downstream_text(_id(number), ids)).encode() + b"}\n"

    @app.route("/api/v1/workflows/<number>/link", methods=["POST"])
    async def link(self, request: Request, number: str) -> bytes:
        doc = parse.body(body(request), ["driver", "resume"])
        driver = reading.text(doc.get("driver"), "driver")
        resume = None if doc.get("resume") is None else reading.one_of(doc["resume"], "resume", Resume)
        return document(request, documents.linked(await kept(self._workflows.link(_id(number), driver, resume))))

    @app.route("/api/v1/workflows/<number>/cancel", methods=["POST"])
    async def cancel(self, request: Request, number: str) -> bytes:
        doc = parse.body(body(request), ["reason"])
        reason = parse.text(doc, "reason", longest=LONGEST_REASON) or "cancelled by a user"
        return document(request, documents.workflow(await kept(self._workflows.cancel(_id(number), reason))))

    # --- workflow runs --------------------------------------------------------------------------------------------------------

    @app.route("/api/v1/workflow-runs/<number>/heartbeat", methods=["POST"])
    async def heartbeat(self, request: Request, number: str) -> bytes:
        doc = _fields(request, "status", "next_report_increment")
        increment = reading.number(doc["next_report_increment"], "next_report_increment")
        status = await self._workflows.heartbeat(_id(number), reading.one_of(doc["status"], "status", RunStatus), increment)
        return document(request, {"status": status.value})

    @app.route("/api/v1/workflow-runs/<number>/queue", methods=["POST"])
    async def queue(self, request: Request, number: str) -> bytes:
        doc = parse.body(body(request), ["array_id", "tasks", "resources", "level"])
        batch = documents.read_batch(doc)
        return document(request, documents.changes(await kept(self._workflows.queue(_id(number), batch))))

    @app.route("/api/v1/workflow-runs/<number>/settle", methods=["POST"])
    async def settle(self, request: Request, number: str) -> bytes:
        await self._workflows.settle(_id(number), documents.read_settlement(_fields(request, "changes")["changes"]))
        return document(request, {})

    @app.route("/api/v1/workflow-runs/<number>/sync", methods=["POST"])
    async def sync(self, request: Request, number: str) -> bytes:
        since = reading.number(_fields(request, "since")["since"], "since")
        return document(request, documents.delta(await self._workflows.sync(_id(number), since)))

    @app.route("/api/v1/workflow-runs/<number>/tasks", methods=["GET"])
    async def begun(self, request: Request, number: str) -> bytes:
        after, limit = _page(parse.query(request.args, ["after", "limit"]))
        return document(request, documents.changes(await self._workflows.begun(_id(number), after, limit)))

    @app.route("/api/v1/workflow-runs/<number>/finish", methods=["POST"])
    async def finish(self, request: Request, number: str) -> bytes:
        doc = _fields(request, "status", "reason")
        reason = reading.text(doc["reason"], "reason", longest=LONGEST_REASON, empty=True)
        await kept(self._workflows.finish(_id(number), reading.one_of(doc["status"], "status", RunStatus), reason))
        return document(request, {})

    @app.route("/api/v1/workflow-runs/<number>/detach", methods=["POST"])
    async def detach(self, request: Request, number: str) -> bytes:
        parse.body(body(request), [])
        await kept(self._workflows.detach(_id(number)))
        return document(request, {})

    @app.handle_errors(Exception)
    def failed(self, request: Request, failure: Failure) -> bytes:
        return answering.failed(request, failure)


def _fields(request: Request, *names: str) -> Mapping[str, JSON]:
    """The body, which has all of these fields and no other."""
    return reading.mapping(parse.body(body(request), names), "the body", names, names)


def _page(found: Mapping[str, str]) -> tuple[int, int]:
    after = parse.whole(found, "after", 0, least=0, most=10**12 - 1)
    return after, parse.whole(found, "limit", 1000, most=MOST_TASKS)


def _id(given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise ApiError(404, f"there is nothing with the id {given[:100]!r}", "an id is a number: see `latent workflow status`")
    return int(given)
