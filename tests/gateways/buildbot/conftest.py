from __future__ import annotations

import pytest
import pytest_twisted

from tests.gateways.buildbot.site import MSGPACK, PB, Site, StockAgent


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    site = Site(tmp_path)
    await site.start()
    yield site
    await site.stop()


@pytest.fixture(params=[PB, MSGPACK])
def protocol(request):
    return request.param


@pytest.fixture
def agent(site, tmp_path, protocol):
    """Makes an agent of the worker ``plain``; it is started with ``async with``."""

    def make(folder="agent", **changes):
        return StockAgent(tmp_path / folder, site.port(protocol), protocol, **changes)

    return make
