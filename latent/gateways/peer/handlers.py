"""The calls of the peer protocol, one method each. What a call may say is checked here; what it means is decided behind.

Times that the controller keeps are its own; an agent's clock is only trusted for when a step of its began and ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from weakref import WeakKeyDictionary

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError

from latent import __version__
from latent.controller.clock import Clock
from latent.errors import EnrolmentRefused, NotYourRun, ProtocolError
from latent.gateways.peer import translate
from latent.gateways.peer.memory import Memory, RunMemory
from latent.gateways.peer.payload import workflow
from latent.gateways.peer.refusal import Code, stopping
from latent.gateways.peer.tokens import REFRESH_LEEWAY, Tokens
from latent.gateways.ports import Dispatcher, Session, Sessions
from latent.gateways.rpc.bridge import Parked, carried_out
from latent.gateways.rpc.refusal import Refusal
from latent.model import LogLine, Outcome, Result, StepStatus
from latent.wire import calls
from latent.wire import peer_pb2 as pb

T = TypeVar("T")

PROTOCOL = "peer"
CAPACITY_LIMIT = 1000
UUID_LIMIT = 64
LEASE_LIMIT = calls.MAX_MESSAGE - 64 * 1024
"""Bytes of payload that fit into one message, with room for the rest of it."""


@frozen
class Caller:
    """Who calls, and what came beside the message."""

    session: Session
    metadata: Mapping[str, str]


class Handlers:
    """``longest_wait``: seconds after which a parked call is answered so that its client asks again."""

    def __init__(
        self, sessions: Sessions, dispatcher: Dispatcher, tokens: Tokens, clock: Clock, *, version: int, longest_wait: float
    ) -> None:
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._tokens = tokens
        self._clock = clock
        self._version = version
        self._longest_wait = longest_wait
        self._memory = Memory()
        self._parked: set[Parked] = set()
        self._filters: WeakKeyDictionary[Session, dict[str, str]] = WeakKeyDictionary()

    def release(self) -> None:
        """Let all parked calls go: the controller is stopping."""
        for parked in list(self._parked):
            parked.release(stopping())

    # --- who calls -----------------------------------------------------------------------------------------------------------

    async def auth(self, request: pb.AuthRequest) -> pb.AuthResponse:
        """A token opens a session; with its id it is the same session again. A session's own access token renews itself."""
        known = request.agent_id if request.agent_id > 0 else None
        session = None
        if known is not None and request.agent_token.count(".") == 2:
            session = await self._refreshed(request.agent_token, known)
        if session is None:
            session = await carried_out(self._sessions.enrol(request.agent_token, PROTOCOL, known))
        return pb.AuthResponse(status="ok", agent_id=session.id, access_token=self._tokens.issue(session.id))

    async def _refreshed(self, token: str, session_id: int) -> Session | None:
        """None when it is not one of our access tokens: an enrolment token may contain dots too."""
        try:
            if self._tokens.verify(token, REFRESH_LEEWAY) != session_id:
                return None
        except EnrolmentRefused:
            return None
        return await self._session(session_id)

    async def caller(self, metadata: Mapping[str, str]) -> Caller:
        """The session that the call's access token belongs to. Raises EnrolmentRefused."""
        token = metadata.get(calls.TOKEN_KEY)
        if not token:
            raise EnrolmentRefused("no access token came with the call; call Auth first")
        session = await self._session(self._tokens.verify(token))
        self._sessions.touch(session)
        return Caller(session, metadata)

    async def _session(self, session_id: int) -> Session:
        """A stock agent that could not reach the controller for a while calls Auth again only when half an hour is over."""
        session: Session
        try:
            session = self._sessions.get(session_id)
        except EnrolmentRefused:
            session = await carried_out(self._sessions.resume(session_id))
        return session

    # --- the agent's life ----------------------------------------------------------------------------------------------------

    async def version(self, caller: Caller, request: pb.Empty) -> pb.VersionResponse:
        """Agents want exactly their own number, and newer ones tell it."""
        told = caller.metadata.get(calls.VERSION_KEY, "")
        version = self._version
        if told:
            if not (told.isascii() and told.isdigit()) or len(told) > 10 or int(told) >= 1 << 31:
                raise ProtocolError(f"{calls.VERSION_KEY} {told[:20]!r} is not a version number")
            version = int(told)
        return pb.VersionResponse(grpc_version=version, server_version=f"latent {__version__}")

    async def register(self, caller: Caller, request: pb.RegisterAgentRequest) -> pb.RegisterAgentResponse:
        info = request.info
        about = {"platform": info.platform, "backend": info.backend, calls.HOSTNAME_KEY: caller.metadata.get(calls.HOSTNAME_KEY)}
        known = {name: value for name, value in about.items() if value}
        await self._attach(
            caller,
            capacity=min(max(1, info.capacity), CAPACITY_LIMIT),
            labels={**known, **info.customLabels},
            info={**known, "version": info.version},
        )
        return pb.RegisterAgentResponse(agent_id=caller.session.id)

    async def _attach(self, caller: Caller, *, capacity: int, labels: dict[str, str], info: dict[str, str]) -> None:
        session = caller.session
        try:
            if not session.worker:
                await carried_out(self._sessions.name(session, caller.metadata.get(calls.HOSTNAME_KEY, "")))
            await carried_out(self._sessions.attach(session, capacity=capacity, labels=labels, info=info))
        except EnrolmentRefused as error:
            raise Refusal(Code.PERMISSION_DENIED, str(error)) from error

    async def health(self, caller: Caller, request: pb.ReportHealthRequest) -> pb.Empty:
        if request.status != calls.ALIVE:
            raise ProtocolError(f"{request.status[:40]!r} is not what a healthy agent says: {calls.ALIVE!r} is")
        return pb.Empty()

    async def unregister(self, caller: Caller, request: pb.Empty) -> pb.Empty:
        """A stock agent unregisters first and then ends what it runs; ours has ended everything by then, and says so."""
        why = "its agent has unregistered"
        idle = calls.IDLE_KEY in caller.metadata
        sessions = self._sessions
        await carried_out(sessions.close(caller.session, why, ended=True) if idle else sessions.leave(caller.session, why))
        return pb.Empty()

    # --- work ----------------------------------------------------------------------------------------------------------------

    async def next(self, caller: Caller, request: pb.NextRequest) -> pb.NextResponse:
        """Parks until there is work. Answered without a workflow now and then, which means: ask again."""
        session = caller.session
        await self._offer(caller, dict(request.filter.labels))
        while True:
            lease = await self._park(session, self._dispatcher.next_lease(session))
            if lease is None:
                return pb.NextResponse()
            work = workflow(lease, session.attempt)
            if len(work.payload) <= LEASE_LIMIT:
                self._memory.leased(lease, session)
                return pb.NextResponse(workflow=work)
            size = f"the build's steps take {len(work.payload)} bytes, an agent can be given {LEASE_LIMIT}"
            outcome = Outcome(result=Result.EXCEPTION, error=size)
            await carried_out(self._dispatcher.finished(session, lease.run_id, outcome, self._clock.seconds()))

    async def _offer(self, caller: Caller, labels: dict[str, str]) -> None:
        """A stock agent says most of its labels only here, the same each time. One that registered with a session before this one
        says nothing else."""
        session = caller.session
        if self._filters.get(session) == labels:
            return
        merged = {**session.labels, **labels}
        if merged != session.labels or not session.attached:
            await self._attach(caller, capacity=session.capacity, labels=merged, info=dict(session.info))
        self._filters[session] = labels

    async def wait(self, caller: Caller, request: pb.WaitRequest) -> pb.WaitResponse:
        """True for a cancellation. May come before Init."""
        run_id = translate.run_id(request.id)
        answer = await self._park(caller.session, self._dispatcher.cancelled(caller.session, run_id))
        if answer is None:
            raise Refusal(Code.DEADLINE_EXCEEDED, "the run goes on; wait again")
        return pb.WaitResponse(canceled=answer)

    async def init(self, caller: Caller, request: pb.InitRequest) -> pb.Empty:
        run_id = translate.run_id(request.id)
        if request.state.started <= 0 or request.state.canceled:
            raise ProtocolError("Init of a run that is not started, or is cancelled")
        self._refuse_finished(run_id, "Init")
        await carried_out(self._dispatcher.activate(caller.session, run_id, self._clock.seconds()))
        return pb.Empty()

    async def extend(self, caller: Caller, request: pb.ExtendRequest) -> pb.Empty:
        self._dispatcher.renew(caller.session, translate.run_id(request.id))
        return pb.Empty()

    async def update(self, caller: Caller, request: pb.UpdateRequest) -> pb.Empty:
        run_id = translate.run_id(request.id)
        uuid = request.state.step_uuid
        if self._run_of_step(caller.session, uuid) != run_id:
            raise ProtocolError(f"step {uuid[:UUID_LIMIT]!r} is not a step of run {run_id}")
        memory = await self._remembered(caller.session, run_id)
        state = translate.step_state(request.state, memory.name_of(uuid), self._clock.seconds())
        if state.status is StepStatus.RUNNING:
            self._refuse_finished(run_id, "Update to running")
        if memory.is_news(state):
            await carried_out(self._dispatcher.step_changed(caller.session, run_id, state))
            if memory.is_news(state):
                memory.steps[uuid] = state
        return pb.Empty()

    async def log(self, caller: Caller, request: pb.LogRequest) -> pb.Empty:
        """A batch may mix steps and runs. What belongs to somebody is stored, also when the rest does not."""
        by_run: dict[int, list[LogLine]] = {}
        unknown = ""
        for entry in request.logEntries:
            run_id = self._run_of_step(caller.session, entry.step_uuid)
            if run_id is None:
                unknown = entry.step_uuid[:UUID_LIMIT] or "(empty)"
            else:
                by_run.setdefault(run_id, []).append(translate.log_line(entry))
        refused = None
        for run_id, lines in by_run.items():
            try:
                memory = await self._remembered(caller.session, run_id)
                async with memory.logging:
                    for part in translate.batches(memory.unseen(lines)):
                        await carried_out(self._dispatcher.logged(caller.session, run_id, part))
                        memory.stored(part)
            except NotYourRun as error:
                refused = error
        if refused is not None:
            raise refused
        if unknown:
            raise Refusal(Code.NOT_FOUND, f"step {unknown} belongs to no run of this session")
        return pb.Empty()

    async def done(self, caller: Caller, request: pb.DoneRequest) -> pb.Empty:
        """Said again, it changes nothing. Steps whose end nobody reported are ended first."""
        run_id = translate.run_id(request.id)
        if request.state.canceled and request.state.started <= 0:
            raise ProtocolError("Done of a run that is cancelled but was never started")
        session, now = caller.session, self._clock.seconds()
        memory = await self._remembered(session, run_id)
        timeout = None if memory.lease is None else memory.lease.timeout
        outcome = translate.outcome(request.state, memory.in_order(), timeout, caller.metadata)
        try:
            for state in memory.still_open(now) if memory.finished_at is None else ():
                await carried_out(self._dispatcher.step_changed(session, run_id, state))
                memory.steps[state.uuid] = state
            await carried_out(self._dispatcher.finished(session, run_id, outcome, now))
        except NotYourRun:
            self._memory.forget(run_id)
            raise
        self._memory.finished(run_id, session, now)
        return pb.Empty()

    # --- the rest ------------------------------------------------------------------------------------------------------------

    def _run_of_step(self, session: Session, uuid: str) -> int | None:
        """The dispatcher's answer, or None for what can't be a step whatever it says."""
        if len(uuid) > UUID_LIMIT:
            return None
        run_id = self._dispatcher.run_of_step(session, uuid)
        if run_id is None or run_id >= translate.INT64:
            return None
        memory = self._memory.known(run_id)
        return run_id if memory is None or memory.may_have(uuid) else None

    async def _remembered(self, session: Session, run_id: int) -> RunMemory:
        """Raises NotYourRun when the run is neither remembered nor the session's."""
        memory = self._memory.known(run_id)
        if memory is None:
            memory = self._memory.recalled(run_id, session, await carried_out(self._dispatcher.recall(session, run_id)))
        return memory

    def _refuse_finished(self, run_id: int, call: str) -> None:
        memory = self._memory.known(run_id)
        if memory is not None and memory.finished_at is not None:
            raise NotYourRun(f"{call}: run {run_id} is over")

    async def _park(self, session: Session, deferred: Deferred[T]) -> T | None:
        """Its result, or None when that took longer than an answer may."""
        deferred.addTimeout(self._longest_wait, self._clock)  # type: ignore[arg-type]  # it needs callLater and no more
        parked = Parked(deferred)
        self._parked.add(parked)
        try:
            answer: T = await parked
            return answer
        except TimeoutError:
            return None
        except EnrolmentRefused:
            if session.closed:
                raise
            # The session is as good as before: it was the controller that stopped waiting.
            raise stopping() from None
        finally:
            self._parked.discard(parked)
