"""The Remote Workers API (specs/bots.md): bots take leases on payloads that latent does not look into."""

# Before anything imports grpc: it turns fork support off.
import latent.wire  # noqa: F401
from latent.gateways.bots.desk import Desk
from latent.gateways.bots.gateway import BotsGateway
from latent.gateways.bots.interface import BotsInterface

__all__ = ["BotsGateway", "BotsInterface", "Desk"]
