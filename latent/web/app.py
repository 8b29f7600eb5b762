"""The routes of the HTTP API. Every answer is JSON (logs may be text); an error is ``{"error": ..., "remedy": ...}``."""

# mypy: disable-error-code="no-untyped-call"
# twisted.web.http.Request has no annotations.

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.server import Request

from latent import __version__
from latent.controller.clock import Clock
from latent.model import Build, BuildState, LogLine
from latent.store.runs import PrepareOutcome, to_document
from latent.web import answering, documents, follow, parse
from latent.web.answering import body, document, kept
from latent.web.facade import Facade, TaskNames
from latent.web.parse import ApiError, BadRequest

LONGEST_WAIT = 600.0
"""Seconds that ``GET /builds/ID?wait=`` waits at most; the client asks again."""

UNFINISHED = [BuildState.QUEUED, BuildState.STARTING, BuildState.RUNNING]


class Api:
    """``reconfigure`` reads the config again and tells what changed; ``stop(fast)`` begins to stop the controller.

    ``tasks``: which builds are of workflows.
    """

    app = Klein()

    def __init__(
        self,
        controller: Facade,
        *,
        clock: Clock,
        reconfigure: Callable[[], Awaitable[list[str]]],
        stop: Callable[[bool], object],
        tasks: TaskNames | None = None,
    ) -> None:
        self._controller = controller
        self._tasks = tasks
        self._clock = clock
        self._started_at = clock.seconds()
        self._reconfigure = reconfigure
        self._stop = stop

    @app.route("/api/v1/status", methods=["GET"])
    async def status(self, request: Request) -> bytes:
        parse.query(request.args, [])
        workers = self._controller.workers()
        waiting = await self._controller.builds(states=UNFINISHED, limit=parse.MAX_LIMIT)
        states = [worker.state for worker in workers]
        doc = {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "workers": {state: states.count(state) for state in sorted(set(states))},
            "builds": {state.value: sum(build.state is state for build in waiting) for state in UNFINISHED},
            "builders": sorted(self._controller.builders()),
            "healthy": all(item.ok for item in self._controller.health()),
        }
        return document(request, doc)

    @app.route("/api/v1/metrics", methods=["GET"])
    async def metrics(self, request: Request) -> bytes:
        parse.query(request.args, [])
        request.setHeader("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        return self._controller.gauges.text().encode()

    @app.route("/api/v1/builds", methods=["POST"])
    async def submit(self, request: Request) -> bytes:
        wanted = parse.submission(body(request))
        if wanted.builder is None:
            asked = wanted.request()
        else:
            known = self._controller.builders()
            if wanted.builder not in known:
                raise BadRequest(f"no builder is called {wanted.builder!r}", _known_builders(wanted.builder, sorted(known)))
            asked = await self._controller.request_for(
                wanted.builder, wanted.properties, wanted.labels, priority=wanted.priority, timeout=wanted.timeout
            )
        build = await kept(self._controller.submit(asked))
        request.setHeader("Location", f"/api/v1/builds/{build.id}")
        return document(request, documents.build(build), 201)

    @app.route("/api/v1/builds", methods=["GET"])
    async def builds(self, request: Request) -> bytes:
        found = parse.query(request.args, ["state", "builder", "limit"])
        states = parse.states(found, "state")
        limit = parse.whole(found, "limit", 50)
        builds = await self._controller.builds(states=states, builder=found.get("builder"), limit=limit)
        return document(request, {"builds": [documents.build(build) for build in builds]})

    @app.route("/api/v1/builds/<build_id>", methods=["GET"])
    async def build(self, request: Request, build_id: str) -> bytes:
        number = _build_id(build_id)
        wait = parse.seconds(parse.query(request.args, ["wait"]), "wait", LONGEST_WAIT)
        details = await self._controller.build(number)
        if wait and details.build.state is not BuildState.FINISHED:
            finished = follow.quiet(self._controller.when_finished(number))
            try:
                await follow.within(finished, wait, self._clock)
            finally:
                finished.cancel()
            details = await self._controller.build(number)
        task = None if self._tasks is None else await self._tasks.task_of(number)
        return document(request, {**documents.details(details), "task": None if task is None else documents.task(task)})

    @app.route("/api/v1/builds/<build_id>/answer", methods=["GET"])
    async def answer(self, request: Request, build_id: str) -> bytes:
        number = _build_id(build_id)
        parse.query(request.args, [])
        found = await self._controller.answer(number)
        if found is None:
            raise _no_answer((await self._controller.build(number)).build)
        return document(request, documents.answer(*found))

    @app.route("/api/v1/builds/<build_id>/logs", methods=["GET"])
    async def logs(self, request: Request, build_id: str) -> bytes:
        number = _build_id(build_id)
        found = parse.query(request.args, ["follow", "run", "format"])
        on = parse.switch(found, "follow")
        wanted = parse.whole(found, "run", 0, most=parse.MAX_NUMBER) or None
        encode, kind = _log_format(found.get("format", "text"))
        details = await self._controller.build(number)
        run_id = follow.chosen_run(details, wanted)
        request.setHeader("Content-Type", kind)
        with follow.Outlet(request) as outlet:

            async def write(run: int, lines: Sequence[LogLine]) -> None:
                await outlet.write("".join(encode(run, line) for line in lines).encode("utf-8", "replace"))

            follower = follow.Follower(self._controller, self._clock, number, write)
            if on and wanted is None:
                await follower.all(details)
            elif run_id is not None:
                await follower.one(run_id, follow=on)
        return b""

    @app.route("/api/v1/builds/<build_id>/cancel", methods=["POST"])
    async def cancel(self, request: Request, build_id: str) -> bytes:
        number = _build_id(build_id)
        doc = parse.body(body(request), ["reason"])
        reason = parse.text(doc, "reason", longest=2000) or "cancelled by a user"
        return document(request, documents.build(await kept(self._controller.cancel(number, reason))))

    @app.route("/api/v1/dispatches", methods=["POST"])
    async def dispatch(self, request: Request) -> bytes:
        found = await kept(self._controller.records.dispatch(parse.dispatch(body(request))))
        return document(request, documents.dispatch(found), 201 if found.outcome is PrepareOutcome.CREATED else 200)

    @app.route("/api/v1/runs", methods=["GET"])
    async def runs(self, request: Request) -> bytes:
        found = parse.query(request.args, ["machine", "status", "after", "limit"])
        runs = await self._controller.records.find(
            machine=found.get("machine"),
            statuses=parse.statuses(found, "status"),
            after=found.get("after"),
            limit=parse.whole(found, "limit", 50),
        )
        return document(request, {"runs": [to_document(run) for run in runs]})

    @app.route("/api/v1/runs", methods=["POST"])
    async def adopt(self, request: Request) -> bytes:
        runs, new_ids = parse.records(body(request))
        stored = await self._controller.records.adopt(runs, new_ids=new_ids)
        return document(request, {"runs": [to_document(run) for run in stored]}, 201)

    @app.route("/api/v1/runs/<run_id>", methods=["GET"])
    async def run(self, request: Request, run_id: str) -> bytes:
        parse.query(request.args, [])
        return document(request, to_document(await self._controller.records.get(run_id[:100])))

    @app.route("/api/v1/workers", methods=["GET"])
    def workers(self, request: Request) -> bytes:
        parse.query(request.args, [])
        workers = [documents.worker(worker) for worker in self._controller.workers()]
        machines = [documents.machine(machine) for machine in self._controller.machines.statuses()]
        return document(request, {"workers": workers, "machines": machines})

    @app.route("/api/v1/workers/<path:name>/pause", methods=["POST"])
    async def pause(self, request: Request, name: str) -> bytes:
        return await self._pause(request, name, True)

    @app.route("/api/v1/workers/<path:name>/unpause", methods=["POST"])
    async def unpause(self, request: Request, name: str) -> bytes:
        return await self._pause(request, name, False)

    async def _pause(self, request: Request, name: str, paused: bool) -> bytes:
        parse.body(body(request), [])
        known = {worker.name for worker in self._controller.workers()}
        if name not in known:
            raise _no_worker(name, sorted(known))
        await self._controller.pause(name, paused)
        return document(request, documents.worker(next(worker for worker in self._controller.workers() if worker.name == name)))

    @app.route("/api/v1/workers/<path:name>/history", methods=["GET"])
    async def history(self, request: Request, name: str) -> bytes:
        limit = parse.whole(parse.query(request.args, ["limit"]), "limit", 100)
        entries = await self._controller.history(name, limit)
        known = [worker.name for worker in self._controller.workers()]
        known += [machine.name for machine in self._controller.machines.statuses()]
        if not entries and name not in known:
            raise _no_worker(name, known)
        return document(request, {"worker": name, "entries": [documents.journal_entry(entry) for entry in entries]})

    @app.route("/api/v1/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        parse.query(request.args, [])
        return document(request, documents.health(self._controller.health()))

    @app.route("/api/v1/leaks", methods=["GET"])
    async def leaks(self, request: Request) -> bytes:
        parse.query(request.args, [])
        return document(request, documents.leaks(await self._controller.leaks.scan()))

    @app.route("/api/v1/leaks/reap", methods=["POST"])
    async def reap(self, request: Request) -> bytes:
        doc = parse.body(body(request), ["controllers", "dry_run", "wait"])
        found = await self._controller.leaks.reap(
            controllers=parse.names(doc, "controllers"),
            dry_run=parse.flag(doc, "dry_run"),
            wait=parse.waiting(doc, "wait", LONGEST_WAIT),
        )
        return document(request, documents.leaks(found))

    @app.route("/api/v1/reconfig", methods=["POST"])
    async def reconfig(self, request: Request) -> bytes:
        parse.body(body(request), [])
        return document(request, {"changes": await self._reconfigure()})

    @app.route("/api/v1/stop", methods=["POST"])
    def stop(self, request: Request) -> bytes:
        fast = parse.flag(parse.body(body(request), ["fast"]), "fast")
        # The answer goes out first: stopping closes the connection that it goes through.
        self._clock.callLater(0, lambda: self._stop(fast))
        return document(request, {"stopping": True, "fast": fast, "pid": os.getpid()}, 202)

    @app.handle_errors(Exception)
    def failed(self, request: Request, failure: Failure) -> bytes:
        return answering.failed(request, failure)


def _no_worker(name: str, known: Sequence[str]) -> ApiError:
    return ApiError(404, f"no worker is called {name!r}", parse.nearest(name, known) + "see `latent workers`")


def _no_answer(build: Build) -> ApiError:
    if build.request.payload is None:
        return ApiError(404, f"build {build.id} has no answer: it has no payload", f"its log is `latent logs {build.id}`")
    if build.state is not BuildState.FINISHED:
        remedy = f"wait for it: `latent build {build.id} --wait --answer FILE`"
        return ApiError(404, f"build {build.id} has no answer yet: it is {build.state.value}", remedy)
    result = build.result.value if build.result else "nothing"
    return ApiError(404, f"build {build.id} ended without an answer: {result}", f"see `latent build {build.id}`")


def _known_builders(name: str, known: Sequence[str]) -> str:
    if not known:
        return "master.cfg declares no builder; give a command"
    return f"{parse.nearest(name, known)}the builders are: {', '.join(known)}"


def _build_id(given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise ApiError(404, f"there is no build {given[:100]!r}", "a build's id is a number: see `latent builds`")
    return int(given)


def _log_format(name: str) -> tuple[Callable[[int, LogLine], str], str]:
    match name:
        case "text":
            return _as_text, "text/plain; charset=utf-8"
        case "json":
            return _as_json, "application/x-ndjson"
        case _:
            raise BadRequest(f"parameter 'format' is {name[:100]!r}", "give text or json")


def _as_text(run_id: int, line: LogLine) -> str:
    return line.text + "\n"


def _as_json(run_id: int, line: LogLine) -> str:
    doc: dict[str, Any] = documents.log_line(run_id, line)
    return json.dumps(doc) + "\n"
