import asyncio

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.gateways.peer_fakes import World


@pytest.fixture
def world():
    return World()


@pytest_twisted.async_yield_fixture
async def gateway(world):
    """A running gateway on ``world``."""
    gateway = world.gateway()
    await gateway.start()
    yield gateway
    await gateway.stop(0)
    # gRPC's own callbacks finish a turn later.
    await Deferred.fromFuture(asyncio.ensure_future(asyncio.sleep(0)))
