"""Stock `buildbot-worker` agents, over PB and over msgpack in a WebSocket (specs/buildbot-worker.md).

`pb` and `websocket` are the two wires; what they have in common with each other is `ports.Link`. Everything else does not know
which one an agent uses.
"""

from latent.gateways.buildbot.gateway import BuildbotGateway

__all__ = ["BuildbotGateway"]
