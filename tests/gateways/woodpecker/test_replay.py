"""Whole conversations of a stock agent, played to a real controller by a client that knows the wire's description alone."""

from pathlib import Path

import pytest
import pytest_twisted

from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import on_loop
from tests.gateways.woodpecker import wire
from tests.gateways.woodpecker.player import Player
from tests.gateways.woodpecker.site import Site

CALLS = sorted((Path(__file__).parent / "calls").glob("*.jsonl"))


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    site = Site(tmp_path)
    yield site
    await site.stop()


@pytest.mark.parametrize("path", CALLS, ids=lambda path: path.stem)
@on_loop
async def test_a_conversation(site, path):
    """Every call is answered as the agent expects it, and what became of the build is what the agent said. See the file."""
    await site.play(Player(site), path)


@pytest.mark.parametrize("name", wire.TYPES)
def test_our_protocol_file_is_what_is_described(name):
    """Each message has the same fields, with the same numbers and types."""
    fields = {(field.name, field.number, field.type, field.label) for field in getattr(pb, name).DESCRIPTOR.fields}
    assert fields == {(field.name, field.number, field.type, field.label) for field in wire.TYPES[name].DESCRIPTOR.fields}
