"""A Woodpecker agent as a program: the variables that the original reads, its calls in its order, its local backend in short."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.gateways.woodpecker.wire import Wire

EXTEND = 20
"""Seconds between two signs that a workflow is still carried out."""


class Agent:
    def __init__(self, environ):
        self.wire = Wire(environ["WOODPECKER_SERVER"])
        self.secret = environ["WOODPECKER_AGENT_SECRET"]
        self.hostname = environ["WOODPECKER_HOSTNAME"]
        self.capacity = int(environ.get("WOODPECKER_MAX_WORKFLOWS", "1"))
        self.config = Path(environ["WOODPECKER_AGENT_CONFIG_FILE"])
        self.health = float(environ.get("PROGRAM_HEALTH", "10"))
        self.metadata = [("hostname", self.hostname), ("proto-version", "16")]

    async def call(self, name, request=None):
        return await self.wire.call(name, request or {}, self.metadata, timeout=None)

    async def run(self):
        known = json.loads(self.config.read_text())["agent_id"] if self.config.exists() else -1
        answer = await self.wire.call("Auth", {"agent_token": self.secret, "agent_id": known})
        self.config.write_text(json.dumps({"agent_id": answer.agent_id}))
        self.metadata.append(("token", answer.access_token))
        if (await self.call("Version")).grpc_version != 16:
            return 1
        info = {"platform": "linux/amd64", "capacity": self.capacity, "backend": "local", "version": "3.17.0"}
        await self.call("RegisterAgent", {"info": info})
        await asyncio.gather(self.live(), *(self.work() for _ in range(self.capacity)))
        return 0

    async def live(self):
        while True:
            await self.call("ReportHealth", {"status": "I am alive!"})
            await asyncio.sleep(self.health)

    async def work(self):
        labels = {"hostname": self.hostname, "platform": "linux/amd64", "backend": "local", "repo": "*"}
        while True:
            answer = await self.call("Next", {"filter": {"labels": labels}})
            if answer.HasField("workflow"):
                await self.carry_out(answer.workflow)

    async def carry_out(self, workflow):
        waiting = asyncio.ensure_future(self.call("Wait", {"id": workflow.id}))
        began = int(time.time())
        await self.call("Init", {"id": workflow.id, "state": {"started": began}})
        extending = asyncio.ensure_future(self.extend(workflow))
        try:
            state = await self.steps(workflow, waiting)
        finally:
            extending.cancel()
        await self.call("Done", {"id": workflow.id, "state": {"started": began, "finished": int(time.time()), **state}})
        await waiting

    async def extend(self, workflow):
        while True:
            await asyncio.sleep(EXTEND)
            await self.call("Extend", {"id": workflow.id})

    async def steps(self, workflow, waiting):
        error, canceled = "", False
        for stage in json.loads(workflow.payload)["pipeline"]:
            (step,) = stage["steps"]
            if (error or canceled) and not step["on_failure"]:
                await self.update(workflow, step, skipped=True)
                continue
            code, canceled = await self.step(workflow, step, waiting)
            if code:
                error = f"uuid={step['uuid']}: exit code {code}"
        return {"error": "" if canceled else error, "canceled": canceled}

    async def step(self, workflow, step, waiting):
        began = int(time.time())
        await self.update(workflow, step, started=began)
        program = await asyncio.create_subprocess_exec(
            "bash",
            "-e",
            "-c",
            "\n".join(step["commands"]),
            env={**{name: os.environ[name] for name in ("PATH", "LATENT_INSTANCE") if name in os.environ}, **step["environment"]},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        output = asyncio.ensure_future(program.stdout.read())
        await asyncio.wait((output, waiting), return_when=asyncio.FIRST_COMPLETED)
        canceled = not output.done()
        if canceled:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
        lines = [base64.b64encode(line).decode() for line in (await output).splitlines(keepends=True)]
        entries = [{"step_uuid": step["uuid"], "line": number, "data": line} for number, line in enumerate(lines)]
        await self.call("Log", {"logEntries": entries})
        code = await program.wait()
        await self.update(
            workflow, step, started=began, finished=int(time.time()), exited=True, exit_code=code, canceled=canceled
        )
        return code, canceled

    async def update(self, workflow, step, **state):
        await self.call("Update", {"id": workflow.id, "state": {"step_uuid": step["uuid"], **state}})


async def main():
    """Exits with 0 when it was ended, and with 1 when a call was refused."""
    agent = Agent(os.environ)
    running = asyncio.ensure_future(agent.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        return await running
    except asyncio.CancelledError:
        await agent.call("UnregisterAgent")
        return 0
    except grpc.aio.AioRpcError as error:
        print(f"refused: {error.details()}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
