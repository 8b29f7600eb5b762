"""Plays what a stock agent says, a line of a file each, to a real controller, and holds the answers against what it expects."""

import asyncio
import base64
import json
import re
import time

import grpc
from attrs import evolve

from latent.model import BuildRequest, Step
from tests.gateways.peer_fakes import twisted
from tests.gateways.stock_agent import refused
from tests.gateways.woodpecker import wire


class Player:
    """``site`` has an ``assembly``, and can be stopped and started.

    A line is a JSON object: ``{"call": NAME, "request": {...}, "answer": {...}}``, where the answer has at least those fields, or
    ``"error": STATUS`` in its place. With ``"as": NAME`` nobody waits for the answer before the line ``{"wait": NAME, ...}``;
    ``{"give up": NAME}`` cancels it. ``{"do": WHAT}`` is what others do meanwhile. ``$x`` is what was learned before.
    """

    def __init__(self, site):
        self.site = site
        self.known = {"now": int(time.time())}
        self.wire = None
        self.hostname, self.version = "host-1", 16
        self.pending = {}

    async def play(self, path):
        try:
            for line in path.read_text().split("\n"):
                if line.strip() and not line.startswith("#"):
                    await self._line(json.loads(line))
        finally:
            for call in self.pending.values():
                call.cancel()
            await asyncio.gather(*self.pending.values(), return_exceptions=True)
            if self.wire is not None:
                await self.wire.close()

    async def _line(self, line):
        match line:
            case {"call": name}:
                call = asyncio.ensure_future(self._call(name, line.get("request", {}), bare=line.get("bare", False)))
                if "as" in line:
                    self.pending[line["as"]] = call
                else:
                    await self._compare(call, line)
            case {"wait": name}:
                await self._compare(self.pending.pop(name), line)
            case {"give up": name}:
                call = self.pending.pop(name)
                call.cancel()
                await asyncio.wait([call])
            case {"do": what}:
                await getattr(self, f"do_{what}")(**{key: value for key, value in line.items() if key != "do"})
            case _:
                raise ValueError(line)

    async def _call(self, name, request, *, bare):
        metadata = [] if bare else [("hostname", self.hostname)]
        if not bare and self.version is not None:
            metadata.append(("proto-version", str(self.version)))
        if "access" in self.known:
            metadata.append(("token", self.known["access"]))
        answer = await self.wire.call(name, self._filled(request), metadata if name != "Auth" else ())
        if name == "Auth":
            self.known |= {"access": answer.access_token, "agent": answer.agent_id}
        if name == "Next" and answer.HasField("workflow"):
            self.known["run"] = answer.workflow.id
            stages = json.loads(answer.workflow.payload)["pipeline"]
            self.known |= {f"step{n}": stage["steps"][0]["uuid"] for n, stage in enumerate(stages)}
        return wire.document(answer)

    async def _compare(self, call, line):
        if "error" in line:
            with refused(grpc.StatusCode[line["error"]]):
                await call
            return
        answer = await call
        expected = self._filled(line.get("answer", {}))
        assert {key: answer.get(key) for key in expected} == expected, line

    def _filled(self, value):
        match value:
            case dict():
                return {key: self._data(part) if key == "data" else self._filled(part) for key, part in value.items()}
            case list():
                return [self._filled(part) for part in value]
            case str():
                return re.sub(r"\$(\w+)", lambda found: str(self.known[found[1]]), value)
            case _:
                return value

    def _data(self, text):
        return base64.b64encode(text.encode()).decode()

    # --- what others do ------------------------------------------------------------------------------------------------------

    async def do_configure(self, version):
        """Has been done before the controller was started."""

    async def do_agent(self, version=16, hostname="host-1"):
        """An agent is started."""
        self.version, self.hostname = version, hostname
        self.known.pop("access", None)
        if self.wire is not None:
            await self.wire.close()
        self.wire = wire.Wire(self.site.port)

    async def do_cut(self):
        """Its connections break; it dials again."""
        await self.wire.close()
        for call in self.pending.values():
            await asyncio.wait([call])
        self.pending.clear()
        self.wire = wire.Wire(self.site.port)

    async def do_restart(self):
        """The controller is stopped by a crash, so to speak, and started again where it was."""
        await self.site.restart()

    async def do_submit(self, steps, **more):
        named = tuple(Step(name=f"s{n}", command=command) for n, command in enumerate(steps))
        build = await twisted(self.site.controller.submit(BuildRequest(builder="b", steps=named, **more)))
        self.known["build"] = build.id

    async def do_cancel(self):
        await twisted(self.site.controller.cancel(self.known["build"], "not wanted"))

    async def do_expire(self):
        """The lease has not been renewed for a minute."""
        dispatcher = self.site.controller.dispatcher
        run = dispatcher.get(int(self.known["run"]))
        run.state = evolve(run.state, expires=0.0)
        dispatcher._tick(run)

    async def do_silence(self, session):
        """The session has not been heard for a minute."""
        sessions = self.site.controller.sessions
        found = sessions.get(int(self._filled(session)))
        found.last_seen = 0.0
        sessions._sweep()
        await self._until(lambda: found.closed)

    async def do_parked(self, what):
        """Until the controller has a Next, or a Wait, of this agent's."""
        controller = self.site.controller
        if what == "Next":
            await self._until(lambda: any(session.parked for session in controller.sessions))
        else:
            await self._until(lambda: controller.dispatcher.get(int(self.known["run"])).watchers)

    async def do_expect(self, state=None, **wanted):
        """What has become of the build."""
        controller = self.site.controller
        if state is None:
            await twisted(controller.when_finished(self.known["build"]))
        details = await twisted(controller.build(self.known["build"]))
        build, run = details.build, details.runs[-1] if details.runs else None
        found = {"result": build.result and build.result.value, "attempts": build.attempts, "state": build.state.value}
        if run is not None:
            lines, _ = controller.store.logs.read(int(run.run.id))
            found["exit_code"] = run.run.exit_code
            found["error_code"] = run.run.error_code
            found["steps"] = [step.status.value for step in run.steps]
            found["log"] = [f"{line.step_uuid.partition('.')[2]}: {line.text}" for line in lines if line.stream != "header"]
            found["sorted_log"] = sorted(found["log"])
        wanted = wanted if state is None else {"state": state, **wanted}
        assert {key: found.get(key) for key in wanted} == wanted

    async def do_session(self, **wanted):
        """How the worker is."""
        status = next(worker for worker in self.site.controller.workers() if worker.name == "plain")
        found = {"state": status.state, "reason": status.reason}
        assert {key: found[key] for key in wanted} == wanted

    async def _until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)
