"""A controller with one plain worker, which is started when it is known which version it is to tell."""

import json

from tests.gateways import site
from tests.gateways.peer_fakes import twisted

SHARED = "a-token-for-all-of-them"
MASTER = """
from latent.plugins import util, worker

c["workers"] = [worker.Worker("plain", "plain-password", max_builds=2, labels={{"declared": "yes"}})]
c["builders"] = [util.Builder("b", ["true"])]
c["protocols"] = {{"peer": {{"token": "{token}", "version": {version}}}}}
"""


class Site(site.Site):
    """``template``: its master.cfg, with places for the settings of `configure`."""

    def __init__(self, folder, template=MASTER):
        self.template = template
        super().__init__(folder, "")

    async def play(self, player, path):
        """Start as the first line says, and play the rest."""
        lines = [line for line in path.read_text().split("\n") if line and not line.startswith("#")]
        version = next((line["version"] for line in map(json.loads, lines) if line.get("do") == "configure"), 16)
        self.configure(version=version)
        await twisted(self.start())
        await player.play(path)

    def configure(self, **settings):
        self.master.write_text(self.template.format(**{"token": SHARED, "version": 16, **settings}))

    async def restart(self):
        await twisted(self.stop())
        await twisted(self.start())

    @property
    def port(self):
        return self.assembly.peer_port
