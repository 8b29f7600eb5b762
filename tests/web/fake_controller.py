"""A controller that holds what a test puts into it, and answers the HTTP API as the real one does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed

from latent.controller.scan import Scan
from latent.errors import ConfigError, NotFound, RunNotFound, StoreError
from latent.model import (
    Build,
    BuildRequest,
    BuildState,
    LogLine,
    Payload,
    Requirements,
    Result,
    Run,
    RunStatus,
    Step,
    StepState,
    StepStatus,
)
from latent.store.runs import PrepareOutcome

NOW = 1_700_000_000.0


@define(kw_only=True)
class FakeRun:
    run: Run
    worker: str = "linux-1"
    attempt: int = 1
    steps: list[StepState] = field(factory=list)


@define(kw_only=True)
class FakeDetails:
    build: Build
    runs: list[FakeRun]
    why: str


@define(kw_only=True)
class FakeWorker:
    name: str
    kind: str = "ProcessLatentWorker"
    latent: bool = True
    state: str = "NOT_SUBSTANTIATED"
    attempt: int = 0
    since: float = NOW
    builds: list[int] = field(factory=list)
    session: dict[str, Any] | None = None
    quarantined_until: float | None = None
    paused: bool = False
    reason: str = ""
    labels: dict[str, list[str]] = field(factory=dict)
    machine: str = ""


@define(kw_only=True)
class FakeMachine:
    name: str
    kind: str = "GenericLatentMachine"
    state: str = "STOPPED"
    since: float = NOW
    starts: int = 0
    workers: list[str] = field(factory=list)
    error: str = ""
    retry_at: float | None = None
    idle_until: float | None = None


@define
class FakeMachines:
    kept: list[FakeMachine] = field(factory=list)

    def statuses(self) -> list[FakeMachine]:
        return self.kept


@define(kw_only=True)
class FakeHealth:
    subject: str
    ok: bool
    message: str
    remedy: str = ""


@define(kw_only=True)
class FakeEntry:
    seq: int
    at: float
    worker: str
    attempt: int
    event: str
    detail: Any
    state_name: str


@define
class FakeRecords:
    """A store of runs in a list; every dispatch is taken, unless a test says otherwise."""

    kept: list[Run] = field(factory=list)
    dispatched: list[BuildRequest] = field(factory=list)
    outcome: PrepareOutcome = PrepareOutcome.CREATED
    build: Build | None = None
    run: Run | None = None
    refusal: Exception | None = None

    async def find(
        self,
        *,
        machine: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Run]:
        found = [run for run in self.kept if machine in (None, run.machine) and (not statuses or run.status in statuses)]
        return found[-(limit or 0) :] if after is None else [run for run in found if int(run.id) > int(after)][:limit]

    async def get(self, id: str) -> Run:
        for run in self.kept:
            if run.id == id:
                return run
        raise RunNotFound(f"there is no run {id}")

    async def adopt(self, runs: Sequence[Run], *, new_ids: bool = False) -> list[Run]:
        if self.refusal:
            raise self.refusal
        added = [evolve(run, id=str(len(self.kept) + n)) if new_ids else run for n, run in enumerate(runs, 1)]
        self.kept += added
        return added

    async def dispatch(self, request: BuildRequest) -> FakeRecords:
        if self.refusal:
            raise self.refusal
        self.dispatched.append(request)
        return self


@define
class FakeLeaks:
    """``scans``: what the next scans see, the last of them for good; ``asked``: how `reap` was called."""

    scans: list[Scan] = field(factory=lambda: [Scan(at=NOW, controller_id="c0ffee")])
    asked: list[dict[str, Any]] = field(factory=list)
    refusal: Exception | None = None

    async def scan(self) -> Scan:
        return self.scans.pop(0) if len(self.scans) > 1 else self.scans[0]

    async def reap(self, **wanted: Any) -> Scan:
        self.asked.append(wanted)
        if self.refusal:
            raise self.refusal
        return await self.scan()


@define(slots=False)
class FakeController:
    """``store``, ``finish``, ``start_run`` and ``log_line`` are the test's controls; the rest is the facade."""

    records: FakeRecords = field(factory=FakeRecords)
    leaks: FakeLeaks = field(factory=FakeLeaks)
    machines: FakeMachines = field(factory=FakeMachines)
    known: dict[int, Build] = field(factory=dict)
    runs: dict[int, list[FakeRun]] = field(factory=dict)
    lines: dict[int, list[LogLine]] = field(factory=dict)
    over: set[int] = field(factory=set)
    worker_list: list[FakeWorker] = field(factory=list)
    health_list: list[FakeHealth] = field(factory=list)
    entries: dict[str, list[FakeEntry]] = field(factory=dict)
    answers: dict[int, tuple[int, Payload]] = field(factory=dict)
    templates: dict[str, object] = field(factory=dict)
    waiting: list[tuple[int, Deferred[Any]]] = field(factory=list)
    listening: list[tuple[int, Deferred[Any]]] = field(factory=list)
    cancelled_waits: int = 0
    broken: Exception | None = None
    finish_at_once: Result | None = None

    # -- what the API calls

    async def submit(self, request: BuildRequest) -> Build:
        if self.broken:
            raise self.broken
        build = self.store(request)
        if self.finish_at_once:
            run = self.start_run(build.id)
            self.log_line(run, "hello")
            self.finish(build.id, self.finish_at_once)
        return self.known[build.id]

    async def cancel(self, build_id: int, reason: str) -> Build:
        self._get(build_id)
        if self.known[build_id].state is not BuildState.FINISHED:
            self.finish(build_id, Result.CANCELLED, reason)
        return self.known[build_id]

    async def build(self, build_id: int) -> FakeDetails:
        build = self._get(build_id)
        return FakeDetails(build=build, runs=list(self.runs.get(build_id, [])), why=build.reason or "it waits for a worker")

    async def builds(
        self, *, states: Collection[BuildState] | None = None, builder: str | None = None, limit: int = 50
    ) -> list[Build]:
        found = [b for b in reversed(self.known.values()) if states is None or b.state in states]
        return [b for b in found if builder is None or b.request.builder == builder][:limit]

    def when_finished(self, build_id: int) -> Deferred[Build]:
        if self._get(build_id).state is BuildState.FINISHED:
            return succeed(self.known[build_id])
        return self._wait(self.waiting, build_id)

    def workers(self) -> list[FakeWorker]:
        return self.worker_list

    def pause(self, worker: str, paused: bool) -> Deferred[None]:
        found = next(known for known in self.worker_list if known.name == worker)
        found.paused, found.reason = paused, "paused" if paused else ""
        return succeed(None)

    def health(self) -> list[FakeHealth]:
        return self.health_list

    async def history(self, worker: str, limit: int) -> list[FakeEntry]:
        return self.entries.get(worker, [])[-limit:]

    def builders(self) -> Mapping[str, object]:
        return self.templates

    async def request_for(
        self,
        builder: str,
        properties: Mapping[str, Any],
        labels: Mapping[str, str],
        *,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> BuildRequest:
        if properties.get("branch") == "missing":
            raise ConfigError(f"builder {builder!r}: step 'checkout' needs property 'branch'; give it with -p branch=...")
        return BuildRequest(
            builder=builder,
            steps=(Step(name="checkout", command=("git", "checkout")),),
            requirements=Requirements(labels=labels),
            properties=properties,
            priority=priority or 0,
            timeout=timeout or 3600.0,
        )

    async def answer(self, build_id: int) -> tuple[int, Payload] | None:
        self._get(build_id)
        return self.answers.get(build_id)

    async def log(self, build_id: int, run_id: int | None, offset: int) -> tuple[Sequence[LogLine], int, bool]:
        self._get(build_id)
        assert run_id is not None
        lines = self.lines.get(run_id, [])
        return lines[offset : offset + 100], min(len(lines), offset + 100), run_id in self.over

    def when_logged(self, run_id: int) -> Deferred[None]:
        return self._wait(self.listening, run_id)

    # -- what the test calls

    def store(self, request: BuildRequest | None = None) -> Build:
        number = len(self.known) + 1
        request = request or BuildRequest(builder="tests", steps=(Step(name="test", command="make test"),))
        self.known[number] = Build(id=number, request=request, submitted_at=NOW + number)
        return self.known[number]

    def start_run(self, build_id: int, worker: str = "linux-1", attempt: int = 1) -> int:
        run_id = 100 + sum(len(runs) for runs in self.runs.values())
        run = Run(id=str(run_id), machine=worker, status=RunStatus.RUNNING, started_at=NOW + 5)
        self.runs.setdefault(build_id, []).append(FakeRun(run=run, worker=worker, attempt=attempt))
        self.known[build_id] = evolve(self.known[build_id], state=BuildState.RUNNING, started_at=NOW + 5, attempts=attempt)
        return run_id

    def log_line(self, run_id: int, text: str, stream: str = "stdout") -> None:
        lines = self.lines.setdefault(run_id, [])
        lines.append(LogLine(step_uuid="s1", line=len(lines), time=0.5, stream=stream, text=text))
        self._fire(self.listening, run_id, None)

    def end_run(self, build_id: int, status: RunStatus, exit_code: int | None = None) -> None:
        for each in self.runs.get(build_id, []):
            if not each.run.status.is_terminal:
                each.run = evolve(each.run, status=status, exit_code=exit_code, ended_at=NOW + 9)
                each.steps = [StepState(uuid="s1", name="test", status=StepStatus.SUCCESS, started_at=NOW + 5, ended_at=NOW + 9)]
                self.over.add(int(each.run.id))
                self._fire(self.listening, int(each.run.id), None)

    def finish(self, build_id: int, result: Result, reason: str = "") -> None:
        self.end_run(build_id, RunStatus.COMPLETED if result is Result.SUCCESS else RunStatus.FAILED, 0)
        changed = evolve(self.known[build_id], state=BuildState.FINISHED, result=result, reason=reason, ended_at=NOW + 9)
        self.known[build_id] = changed
        self._fire(self.waiting, build_id, changed)

    def break_store(self) -> None:
        self.broken = StoreError("the disk is full; free some space")

    def _get(self, build_id: int) -> Build:
        if build_id not in self.known:
            raise NotFound(f"there is no build {build_id}; see `latent builds`")
        return self.known[build_id]

    def _wait(self, waiters: list[tuple[int, Deferred[Any]]], key: int) -> Deferred[Any]:
        def cancelled(_: Deferred[Any]) -> None:
            self.cancelled_waits += 1
            waiters[:] = [(k, d) for k, d in waiters if d is not waiting]

        waiting: Deferred[Any] = Deferred(cancelled)
        waiters.append((key, waiting))
        return waiting

    def _fire(self, waiters: list[tuple[int, Deferred[Any]]], key: int, result: Any) -> None:
        due = [d for k, d in waiters if k == key]
        waiters[:] = [(k, d) for k, d in waiters if k != key]
        for waiting in due:
            waiting.callback(result)
