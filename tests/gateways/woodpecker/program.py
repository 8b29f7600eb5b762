"""A Woodpecker agent as a program: the variables that the original reads, its calls in its order, its local backend in short."""

import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.gateways.woodpecker.wire import Wire


class Agent:
    def __init__(self, environ):
        self.wire = Wire(environ["WOODPECKER_SERVER"])
        self.secret = environ["WOODPECKER_AGENT_SECRET"]
        self.hostname = environ["WOODPECKER_HOSTNAME"]
        self.capacity = int(environ.get("WOODPECKER_MAX_WORKFLOWS", "1"))
        self.config = Path(environ["WOODPECKER_AGENT_CONFIG_FILE"])
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
            await asyncio.sleep(10)

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
        error, canceled = "", False
        for stage in json.loads(workflow.payload)["pipeline"]:
            (step,) = stage["steps"]
            if (error or canceled) and not step["on_failure"]:
                await self.update(workflow, step, skipped=True)
                continue
            code, canceled = await self.step(workflow, step, waiting)
            if code:
                error = f"uuid={step['uuid']}: exit code {code}"
        state = {"started": began, "finished": int(time.time()), "error": "" if canceled else error, "canceled": canceled}
        await self.call("Done", {"id": workflow.id, "state": state})
        await waiting

    async def step(self, workflow, step, waiting):
        began = int(time.time())
        await self.update(workflow, step, started=began)
        program = await asyncio.create_subprocess_exec(
            "bash",
            "-e",
            "-c",
            "\n".join(step["commands"]),
            env={**step["environment"], "PATH": os.environ["PATH"]},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = asyncio.ensure_future(program.stdout.read())
        await asyncio.wait((output, waiting), return_when=asyncio.FIRST_COMPLETED)
        canceled = not output.done()
        if canceled:
            program.kill()
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
    return await Agent(os.environ).run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
