"""The agent: a session, and as many runs at a time as it has room for.

`Agent.run` ends with an exit code (see `latent.agent.options.EPILOG`), whatever happens, and leaves no step behind.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import socket
from collections.abc import Mapping

from latent import __version__
from latent.agent.connection import CallRefused, Connection, SessionOver, pauses
from latent.agent.guard import Guard, NoGuard
from latent.agent.logs import LogBuffer
from latent.agent.options import Options
from latent.agent.run import Run, Tools, Why
from latent.wire import calls
from latent.wire import peer_pb2 as pb

log = logging.getLogger(__name__)

STOPPED, FAILED, REFUSED, ORPHANED = 0, 1, 3, 4
"""Exit codes."""

NEXT_TIMEOUT = 900.0
"""Seconds of one Next; longer than a gateway lets it last."""


class Orphaned(Exception):
    """No controller for too long."""


class Agent:
    """``environ``: what steps inherit, less what `latent.agent.environment` takes out. ``guard``: see `latent.agent.guard`."""

    def __init__(self, options: Options, environ: Mapping[str, str], guard: Guard | None = None) -> None:
        self._options = options
        self._environ = dict(environ)
        self._guard = guard or NoGuard()
        self._stopping = asyncio.Event()
        self._runs: dict[str, Run] = {}
        self._slots: list[asyncio.Task[None]] = []

    def stop(self) -> None:
        """End the steps, say so, and go."""
        self._stopping.set()

    async def run(self) -> int:
        """Until `stop`, or until the controller is gone for good. Returns the exit code."""
        options = self._options
        hostname = socket.gethostname()
        connection = Connection(options.server, options.token, hostname)
        logs = LogBuffer(connection, options.flush)
        tools = Tools(options=options, connection=connection, logs=logs, guard=self._guard, environ=self._environ)
        tasks = [asyncio.ensure_future(work) for work in (self._stay(connection, tools, hostname), logs.run())]
        watch = asyncio.ensure_future(self._watch_orphan(connection))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((*tasks, watch, stopping), return_when=asyncio.FIRST_COMPLETED)
            failed = next((task for task in (*tasks, watch) if task.done() and task.exception() is not None), None)
            return await self._end(connection, failed.exception() if failed is not None else None)
        finally:
            for task in (*tasks, watch, stopping, *self._slots):
                task.cancel()
            await asyncio.gather(*tasks, watch, stopping, *self._slots, return_exceptions=True)
            await connection.close()

    async def _end(self, connection: Connection, error: BaseException | None) -> int:
        options = self._options
        self._stopping.set()
        match error:
            case None:
                log.info("told to stop")
                await self._end_runs(Why.SHUTDOWN, options.grace + options.farewell)
                await self._unregister(connection)
                return STOPPED
            case SessionOver():
                log.error("%s", error)
                code = REFUSED
            case Orphaned():
                log.error("no controller answered for %g s", options.orphan_timeout)
                code = ORPHANED
            case _:
                log.error("the agent failed", exc_info=error)
                code = FAILED
        await self._end_runs(Why.DROPPED, options.grace + 1)
        return code

    async def _end_runs(self, why: Why, seconds: float) -> None:
        """End all runs within that time; those that take longer lose their steps at once."""
        for run in self._runs.values():
            run.stop(why)
        if self._slots:
            _, late = await asyncio.wait(self._slots, timeout=seconds)
            for slot in late:
                slot.cancel()
            await asyncio.gather(*self._slots, return_exceptions=True)

    async def _unregister(self, connection: Connection) -> None:
        if connection.session_id == -1:
            return
        try:
            async with asyncio.timeout(self._options.farewell / 2):
                await connection.call(
                    calls.UNREGISTER, pb.Empty(), timeout=self._options.farewell / 2, metadata=((calls.IDLE_KEY, "1"),)
                )
        except (TimeoutError, CallRefused, SessionOver) as error:
            log.info("could not unregister: %s", error or "no answer")

    # --- the session -----------------------------------------------------------------------------------------------------------

    async def _stay(self, connection: Connection, tools: Tools, hostname: str) -> None:
        """Attach, and be alive until cancelled; slots run beside."""
        await self._attach(connection)
        self._slots = [asyncio.ensure_future(self._slot(tools, hostname)) for _ in range(self._options.capacity)]
        health = asyncio.ensure_future(self._show_life(connection))
        try:
            done, _ = await asyncio.wait((health, *self._slots), return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            await health
        finally:
            health.cancel()

    async def _attach(self, connection: Connection) -> None:
        try:
            version = await connection.call(calls.VERSION, pb.Empty())
            if version.grpc_version != calls.PROTOCOL_VERSION:
                raise SessionOver(
                    f"the controller ({version.server_version}) speaks version {version.grpc_version} of the protocol, "
                    f"this agent version {calls.PROTOCOL_VERSION}"
                )
            info = pb.AgentInfo(
                platform=f"{platform.system().lower()}/{platform.machine()}",
                capacity=self._options.capacity,
                backend="latent",
                version=__version__,
                customLabels=self._options.labels,
            )
            await connection.call(calls.REGISTER, pb.RegisterAgentRequest(info=info))
        except CallRefused as error:
            raise SessionOver(f"the controller refuses this agent: {error.details}") from None
        log.info("attached to %s as session %d", self._options.server, connection.session_id)

    async def _show_life(self, connection: Connection) -> None:
        """ReportHealth; and RegisterAgent once more if the session had to be opened anew."""
        while True:
            if connection.renewed.is_set():
                connection.renewed.clear()
                await self._attach(connection)
            try:
                await connection.call(calls.HEALTH, pb.ReportHealthRequest(status=calls.ALIVE), timeout=self._options.health)
            except CallRefused as error:
                log.warning("%s", error)
            await asyncio.sleep(self._options.health)

    async def _watch_orphan(self, connection: Connection) -> None:
        """Raises Orphaned in the end."""
        loop = asyncio.get_running_loop()
        while (left := connection.heard + self._options.orphan_timeout - loop.time()) > 0:
            await asyncio.sleep(left)
        raise Orphaned

    # --- work ------------------------------------------------------------------------------------------------------------------

    async def _slot(self, tools: Tools, hostname: str) -> None:
        """One run after the other."""
        request = pb.NextRequest(filter=pb.Filter(labels={calls.HOSTNAME_KEY: hostname, **self._options.labels}))
        waits = pauses()
        while not self._stopping.is_set():
            workflow = await self._next(tools.connection, request)
            if workflow is None:
                continue
            if workflow.id in self._runs:
                # Given again because its Init is not through; another slot has it.
                await asyncio.sleep(next(waits))
                continue
            waits = pauses()
            run = self._runs[workflow.id] = Run(workflow, tools)
            try:
                await run.execute()
            finally:
                del self._runs[workflow.id]

    async def _next(self, connection: Connection, request: pb.NextRequest) -> pb.Workflow | None:
        """The next lease; None when there is none yet, or the agent stops."""
        asking = asyncio.ensure_future(connection.call(calls.NEXT, request, timeout=NEXT_TIMEOUT))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return None
            answer: pb.NextResponse = asking.result()
        except CallRefused as error:
            log.warning("%s", error)
            await asyncio.sleep(1)
            return None
        finally:
            asking.cancel()
            stopping.cancel()
        return answer.workflow if answer.HasField("workflow") else None
