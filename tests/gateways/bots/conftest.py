import asyncio

import pytest_twisted
from twisted.internet.defer import Deferred


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    from tests.gateways.bots.kit import Site  # imports much, and the reactor is not there yet when this file is read

    site = Site(tmp_path)
    await site.start()
    yield site
    await site.stop()
    # gRPC's own callbacks finish a turn later.
    await Deferred.fromFuture(asyncio.ensure_future(asyncio.sleep(0)))
