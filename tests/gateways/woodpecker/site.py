"""A controller with one plain worker, which is started when it is known which version it is to tell."""

import json

from latent.cli.assembly import Assembly
from tests.gateways.peer_fakes import twisted

SHARED = "a-token-for-all-of-them"
MASTER = """
from latent.plugins import util, worker

c["workers"] = [worker.Worker("plain", "plain-password", max_builds=2, labels={{"declared": "yes"}})]
c["builders"] = [util.Builder("b", ["true"])]
c["protocols"] = {{"peer": {{"token": "{token}", "version": {version}}}}}
"""


class Site:
    def __init__(self, folder, master=MASTER):
        self.folder = folder
        self.master = master
        self.assembly = None

    async def play(self, player, path):
        """Start as the first line says, and play the rest."""
        lines = [line for line in path.read_text().split("\n") if line and not line.startswith("#")]
        version = next((line["version"] for line in map(json.loads, lines) if line.get("do") == "configure"), 16)
        self.configure(version=version)
        await twisted(self.start())
        await player.play(path)

    def configure(self, **settings):
        (self.folder / "master.cfg").write_text(self.master.format(**{"token": SHARED, "version": 16, **settings}))

    async def start(self):
        from twisted.internet import reactor  # pytest-twisted has installed it by now

        self.assembly = Assembly(self.folder / "master.cfg", self.folder / "state", reactor=reactor, ended=lambda: None)
        await self.assembly.start()

    async def stop(self):
        assembly, self.assembly = self.assembly, None
        if assembly is not None:
            await assembly.stop(fast=True)

    async def restart(self):
        await twisted(self.stop())
        await twisted(self.start())

    @property
    def controller(self):
        return self.assembly.controller

    @property
    def port(self):
        return self.assembly.peer_port
