"""The peer protocol (specs/peer.md): Woodpecker's agents and ours."""

# Before anything imports grpc: it turns fork support off.
import latent.wire  # noqa: F401
from latent.gateways.peer.gateway import PeerGateway

__all__ = ["PeerGateway"]
