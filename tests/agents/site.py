"""A whole controller in the test's reactor, and agents of every kind as processes of their own, each behind a network."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from latent.model import BuildRequest, BuildState, Payload, Requirements, RunStatus
from latent.worker import processes
from tests.e2e import agents
from tests.gateways.buildbot import site
from tests.gateways.buildbot.site import MSGPACK, PB, TAC, sleep, until

BEAT = 0.5
"""Seconds between two signs of life of an agent."""

MASTER = f"""
from latent.plugins import util, worker

c["workers"] = [worker.Worker("plain", "plain-password")]
c["builders"] = [util.Builder("b", ["true"])]
c["protocols"] = {{
    "peer": {{}},
    "bots": {{"keep_alive": 5}},
    "pb": {{"keepalive_interval": {BEAT}}},
    "msgpack_experimental_v7": {{"keepalive_interval": {BEAT}}},
}}
c["limits"] = {{"session_timeout": {3 * BEAT}}}
"""

PROTOCOLS = {"ours": "peer", "woodpecker": "peer", "bot": "bots", "pb": PB, "msgpack": MSGPACK}
"""Kinds of agents, and what they speak."""

SCRIPT = (
    "exec 9>{lock}; flock -n 9 || echo twice >>{twice}; echo $$ >{pid}.new; mv {pid}.new {pid}; test -e {go} || exec sleep 1000"
)
"""Lasts until it is killed, unless it may go; says when it is carried out by two at once."""


class Site(site.Site):
    """Agents of all kinds come to it."""

    def __init__(self, folder):
        super().__init__(folder, MASTER)

    async def ask(self, kind, script):
        """A build of a kind that the agent can carry out."""
        if kind != "bot":
            return await self.submit(script)
        needs = Requirements()
        request = BuildRequest(
            builder="b", payload=Payload("type.googleapis.com/tests.Script", script.encode()), requirements=needs
        )
        return await self.controller.submit(request)

    async def interrupted(self, build):
        """Until its first run is lost: the run."""
        while True:
            runs = await self.runs(build)
            if runs and runs[0].run.status is RunStatus.INTERRUPTED:
                return runs[0].run
            await sleep()

    async def carried_out(self, build, agent):
        """Until it is finished by an agent that is kept up meanwhile: the build."""
        while (known := (await self.controller.build(build.id)).build).state is not BuildState.FINISHED:
            agent.look()
            await sleep()
        return known


def start(kind, folder, port):
    """The agent of the worker ``plain``, in its folder; one that was there before is the same."""
    match kind:
        case "ours":
            told = {"LATENT_SERVER": f"127.0.0.1:{port}", "LATENT_TOKEN": "plain-password", "GRPC_ENABLE_FORK_SUPPORT": "0"}
            quick = {"LATENT_HEALTH_INTERVAL": str(BEAT), "LATENT_EXTEND_INTERVAL": str(BEAT)}
            return agents.Agent(folder, [str(agents.BIN / "latent-agent")], **told, **quick)
        case "woodpecker":
            told = {
                "WOODPECKER_SERVER": f"127.0.0.1:{port}",
                "WOODPECKER_AGENT_SECRET": "plain-password",
                "WOODPECKER_HOSTNAME": "a-host",
                "WOODPECKER_AGENT_CONFIG_FILE": str(folder / "agent.json"),
                "PROGRAM_HEALTH": str(BEAT),
            }
            return agents.Agent(folder, agents.WOODPECKER, **told)
        case "bot":
            return agents.bot(folder, lambda protocol: port, "plain", "plain-password", 1)
    folder.mkdir(exist_ok=True)
    about = {"host": "127.0.0.1", "port": port, "name": "plain", "password": "plain-password", "basedir": str(folder)}
    more = {"protocol": PROTOCOLS[kind], "tls": False, "connection_string": None}
    (folder / "buildbot.tac").write_text(TAC % {**about, **more})
    twistd = str(Path(sys.executable).with_name("twistd"))
    return agents.Agent(folder, [twistd, "--nodaemon", "--pidfile=", "--no_save", "-y", "buildbot.tac"])


class KeptUp:
    """An agent that a service manager starts again whenever it has ended: some do whose session is lost."""

    def __init__(self, start):
        self.start = start
        self.agents = [start()]

    @property
    def log(self):
        return self.agents[-1].log

    def ended(self):
        return self.agents[-1].process.poll() is not None

    def look(self):
        """To be called for as long as something is expected of it: it may end at any time, a moment after its step too."""
        if self.ended():
            self.agents.append(self.start())

    async def step_gone(self, pid):
        """Until the step is gone. One that outlives its agent, as a Woodpecker agent's may, is ended by the service manager."""

        def gone():
            if (step := processes.look(pid)) is not None and self.ended():
                processes.send([step], signal.SIGKILL)
            return step is None

        await until(gone)

    def end(self):
        """Whatever it still does, by pid."""
        if not self.ended():
            self.agents[-1].process.kill()
        self.agents[-1].process.wait()
