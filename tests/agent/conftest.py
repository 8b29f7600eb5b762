from tests.gateways.conftest import gateway, world

__all__ = ["gateway", "world"]
