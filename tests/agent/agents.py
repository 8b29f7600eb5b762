"""Our agent under test: in this process, or as a process of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from latent.agent.core import Agent
from latent.agent.options import Options

ROOT = Path(__file__).parent.parent.parent

QUICK = {
    "LATENT_EXTEND_INTERVAL": "0.2",
    "LATENT_HEALTH_INTERVAL": "0.2",
    "LATENT_LOG_INTERVAL": "0.05",
    "LATENT_GRACE": "5",
    "LATENT_FAREWELL": "5",
}


def options(gateway, workdir, **changes):
    given = {
        "server": f"127.0.0.1:{gateway.port}",
        "token": "one-time",
        "workdir": workdir,
        "extend": 0.2,
        "health": 0.2,
        "flush": 0.05,
        "grace": 5.0,
        "farewell": 5.0,
    }
    return Options(**{**given, **changes})


@contextlib.asynccontextmanager
async def running(gateway, workdir, environ=None, **changes):
    """An agent in this process; yields the task whose result is its exit code. It is stopped at the end."""
    agent = Agent(options(gateway, workdir, **changes), os.environ if environ is None else environ)
    task = asyncio.ensure_future(agent.run())
    try:
        yield task
    finally:
        agent.stop()
        await asyncio.wait([task])


class AgentProcess:
    """``python -m latent.agent.main``. Ends with the ``async with``, its own way first."""

    def __init__(self, port, workdir, token="one-time", arguments=(), **environ):
        self.environ = {
            **os.environ,
            **QUICK,
            "PYTHONPATH": str(ROOT),
            "LATENT_SERVER": f"127.0.0.1:{port}",
            "LATENT_TOKEN": token,
            "LATENT_WORKER": "w",
            "LATENT_ATTEMPT": "1",
            "LATENT_INSTANCE": "instance-1",
            **environ,
        }
        self.workdir = workdir
        self.arguments = arguments
        self.errors = b""

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "latent.agent.main", "--workdir", str(self.workdir), *self.arguments),
            env=self.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._reading = asyncio.ensure_future(self.process.stderr.read())
        return self

    async def __aexit__(self, *error):
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.exit_code(), 20)
        except TimeoutError:
            self.process.kill()
            await self.exit_code()

    def signal(self, number):
        self.process.send_signal(number)

    async def exit_code(self):
        code = await self.process.wait()
        self.errors = await self._reading
        return code


class Alive:
    """A FIFO that a step holds open: it tells when the step has begun, and when everything that it started is gone.

    Its command begins with ``.hold``; what it writes to descriptor 9 is what `gone` returns.
    """

    def __init__(self, folder):
        self.path = folder / "alive"
        os.mkfifo(self.path)
        self.hold = f"exec 9>{self.path}; "

    async def begun(self):
        self._file = await asyncio.to_thread(self.path.open, "rb")

    async def gone(self):
        data = await asyncio.to_thread(self._file.read)
        self._file.close()
        return data.decode()
