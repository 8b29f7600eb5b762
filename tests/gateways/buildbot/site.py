"""A whole controller in the test's reactor, and stock agents as processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from latent.model import BuildRequest, Requirements, Step
from tests.gateways import site

PB = "pb"
MSGPACK = "msgpack_experimental_v7"

MASTER = """
from latent.plugins import util, worker

c["workers"] = [worker.Worker("plain", "plain-password"), worker.Worker("twice", "twice-password", max_builds=2)]
c["builders"] = [util.Builder("b", ["true"])]
c["protocols"] = {
    "pb": {"keepalive_interval": 0.5},
    "msgpack_experimental_v7": {"keepalive_interval": 0.5},
}
"""

TAC = """
import sys
from twisted.application import service
from twisted.python import log
from buildbot_worker.bot import Worker

application = service.Application("buildbot-worker")
Worker(%(host)r, %(port)r, %(name)r, %(password)r, %(basedir)r, 600, protocol=%(protocol)r, useTls=%(tls)r,
       connection_string=%(connection_string)r, allow_shutdown="signal").setServiceParent(application)
"""


def sleep(seconds=0.05):
    from twisted.internet import reactor  # pytest-twisted has installed it by now

    return deferLater(reactor, seconds)


async def until(ready, what="what was waited for"):
    """Ask until the answer is true; the tests' own time limit ends what never is."""
    while not (answer := ready()):
        await sleep()
    return answer


class Site(site.Site):
    """A controller that Buildbot's agents come to."""

    def __init__(self, folder, master=MASTER):
        super().__init__(folder, master)

    async def start(self):
        await super().start()
        await until(lambda: self.controller._recovered.called)

    def port(self, protocol):
        return self.assembly.port(protocol)

    async def submit(self, *steps, worker=None, **more):
        made = tuple(step if isinstance(step, Step) else Step(name=f"s{index}", command=step) for index, step in enumerate(steps))
        requirements = Requirements(workers=frozenset([worker]) if worker else None)
        return await self.controller.submit(BuildRequest(builder="b", steps=made, requirements=requirements, **more))

    async def finished(self, build):
        return await self.controller.when_finished(build.id)

    async def runs(self, build):
        return (await self.controller.build(build.id)).runs

    async def run_of(self, build):
        return (await self.runs(build))[-1]

    def lines(self, run, stream="stdout"):
        found, _ = self.controller.store.logs.read(int(run.run.id))
        return [line.text for line in found if line.stream == stream]

    def status(self, worker):
        return next(status for status in self.controller.workers() if status.name == worker)

    async def attached(self, worker):
        return await until(lambda: self.status(worker).session)

    async def detached(self, worker):
        return await until(lambda: not self.status(worker).session)

    async def running(self, build):
        """Until a step of the build has said that it runs; its text."""

        async def looked():
            runs = await self.runs(build)
            return bool(runs) and "begun" in self.lines(runs[-1])

        while not await looked():
            await sleep()
        return await self.run_of(build)


class StockAgent:
    """A `buildbot-worker`. Ends with the ``async with``."""

    def __init__(self, folder, port, protocol, name="plain", password="plain-password", tls=False, connection=None, **environ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.protocol = protocol
        self.values = {
            "host": None if connection else "127.0.0.1",
            "port": None if connection else port,
            "name": name,
            "password": password,
            "basedir": str(self.folder),
            "protocol": protocol,
            "tls": tls,
            "connection_string": connection,
        }
        self.environ = {**os.environ, **environ}
        self.process = None

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *error):
        await self.end()

    async def start(self):
        tac = self.folder / "buildbot.tac"
        tac.write_text(TAC % self.values)
        log = (self.folder / "twistd.log").open("ab")
        with log:
            making = asyncio.create_subprocess_exec(
                *(str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", "--no_save", "-y", str(tac)),
                cwd=self.folder,
                env=self.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self.process = await Deferred.fromFuture(asyncio.ensure_future(making))

    def log(self):
        return (self.folder / "twistd.log").read_text(errors="replace")

    def tell(self, number):
        self.process.send_signal(number)

    async def end(self, number=signal.SIGTERM):
        process, self.process = self.process, None
        if process is not None:
            if process.returncode is None:
                process.send_signal(number)
                process.send_signal(signal.SIGCONT)
            return await Deferred.fromFuture(asyncio.ensure_future(process.wait()))
        return None

    async def kill(self):
        return await self.end(signal.SIGKILL)
