"""The server's rules of the peer protocol over real gRPC on loopback: who may call, and what an agent's life is."""

import jwt
import pytest

from latent.gateways.peer.tokens import LIFETIME, REFRESH_LEEWAY
from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import SECRET, on_loop
from tests.gateways.stock_agent import Code, agent, refused

# --- Auth ----------------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_one_time_token_opens_one_session(gateway, world):
    """A one-time token opens a session, once."""
    async with agent(gateway) as first, agent(gateway) as second:
        answer = await first.auth()
        assert (answer.status, answer.agent_id) == ("ok", 1)
        with refused(Code.UNAUTHENTICATED, "unknown or was used"):
            await second.auth()


@on_loop
async def test_the_known_id_reuses_the_session(gateway, world):
    """The same token with the id that it opened is the same session."""
    async with agent(gateway) as stock:
        await stock.auth()
        assert (await stock.auth()).agent_id == 1
        assert len(world.sessions) == 1


@on_loop
async def test_a_foreign_token_with_a_known_id_is_refused(gateway, world):
    """The id of a session is no use without the token that opened it."""
    async with agent(gateway) as stock, agent(gateway, "wrong", agent_id=1) as thief:
        await stock.auth()
        with refused(Code.UNAUTHENTICATED):
            await thief.auth()


@on_loop
async def test_a_plain_workers_password_opens_sessions(gateway, world):
    """A plain worker's password is good for a session each time."""
    async with agent(gateway, "plain-password") as first, agent(gateway, "plain-password") as second:
        assert {(await first.auth()).agent_id, (await second.auth()).agent_id} == {1, 2}


@on_loop
async def test_an_access_token_renews_itself(gateway, world):
    """A session's own access token, even one that expired lately, gets the next one."""
    async with agent(gateway) as stock:
        await stock.auth()
        stock.token = stock.access
        world.clock.ahead = LIFETIME + 60
        with refused(Code.UNAUTHENTICATED, "expired"):
            await stock.call("Version", pb.Empty())
        assert (await stock.auth()).agent_id == 1
        await stock.call("Version", pb.Empty())
        world.clock.ahead += LIFETIME + REFRESH_LEEWAY + 60
        stock.token = stock.access
        with refused(Code.UNAUTHENTICATED):
            await stock.auth()


@on_loop
async def test_an_access_token_of_another_session_renews_nothing(gateway, world):
    """An access token is good for its own session only."""
    async with agent(gateway) as one, agent(gateway, "two") as two:
        await one.auth()
        await two.auth()
        one.token = two.access
        with refused(Code.UNAUTHENTICATED):
            await one.auth()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        jwt.encode({"agent_id": 1, "exp": 9e9}, "", algorithm="none"),
        jwt.encode({"agent_id": 1, "exp": 9e9}, b"another secret, also thirty-two b", algorithm="HS256"),
        jwt.encode({"agent_id": "1", "exp": 9e9}, SECRET, algorithm="HS256"),
        jwt.encode({"agent_id": 1}, SECRET, algorithm="HS256"),
        jwt.encode({"agent_id": 1, "exp": 1}, SECRET, algorithm="HS256"),
        jwt.encode({"agent_id": 7, "exp": 9e9}, SECRET, algorithm="HS256"),
    ],
    ids=["empty", "nonsense", "none-alg", "other-secret", "wrong-type", "endless", "expired", "unknown-session"],
)
@on_loop
async def test_a_bad_access_token_is_refused(gateway, world, token):
    """Whatever is not an unexpired token of an open session is UNAUTHENTICATED."""
    async with agent(gateway) as stock:
        await stock.auth()
        stock.access = token
        with refused(Code.UNAUTHENTICATED):
            await stock.call("Version", pb.Empty())


@on_loop
async def test_a_call_without_any_token_is_refused(gateway, world):
    """No metadata at all is UNAUTHENTICATED too."""
    async with agent(gateway) as stock:
        with refused(Code.UNAUTHENTICATED, "call Auth first"):
            await stock.stub.Next(pb.NextRequest())


# --- the agent's life ------------------------------------------------------------------------------------------------------


@on_loop
async def test_the_agents_own_version_is_echoed(gateway, world):
    """An agent that tells its protocol version hears it again; others hear 16."""
    for told, answered in ((None, 16), (16, 16), (17, 17), (12, 12)):
        async with agent(gateway, "plain-password", version=told) as stock:
            await stock.auth()
            assert (await stock.call("Version", pb.Empty())).grpc_version == answered


@pytest.mark.parametrize("version", ["sixteen", "-1", "1" * 11, "2147483648", "9" * 5000], ids=lambda text: text[:12])
@on_loop
async def test_a_version_that_is_no_number_is_refused(gateway, world, version):
    """Nonsense in the version's place gets a clean status."""
    async with agent(gateway, version=version) as stock:
        await stock.auth()
        with refused(Code.INVALID_ARGUMENT):
            await stock.call("Version", pb.Empty())


@on_loop
async def test_registering_attaches(gateway, world):
    """RegisterAgent says what the agent can do."""
    async with agent(gateway) as stock:
        await stock.auth()
        answer = await stock.register(capacity=3, labels={"disk": "ssd"})
        assert answer.agent_id == 1
    session = world.sessions[1]
    assert session.capacity == 3
    assert session.labels == {"platform": "linux/amd64", "backend": "local", "hostname": "host-1", "disk": "ssd"}
    assert session.info["version"] == "3.17.0"


@on_loop
async def test_a_refused_attachment_says_why(gateway, world):
    """A stale attempt's agent is told so."""
    world.attach_refused = "this token belongs to attempt w#1, which is over"
    async with agent(gateway) as stock:
        await stock.auth()
        with refused(Code.PERMISSION_DENIED, "w#1"):
            await stock.register()


@on_loop
async def test_health_is_a_sign_of_life(gateway, world):
    """ReportHealth touches the session; any other text than the agreed one is refused."""
    async with agent(gateway) as stock:
        await stock.attach()
        before = world.sessions[1].touched
        await stock.call("ReportHealth", pb.ReportHealthRequest(status="I am alive!"))
        assert world.sessions[1].touched == before + 1
        with refused(Code.INVALID_ARGUMENT):
            await stock.call("ReportHealth", pb.ReportHealthRequest(status="so-so"))


@on_loop
async def test_unregistering_ends_the_session(gateway, world):
    """After UnregisterAgent the session's calls are UNAUTHENTICATED."""
    async with agent(gateway) as stock:
        await stock.attach()
        await stock.call("UnregisterAgent", pb.Empty())
        assert world.sessions[1].closed
        with refused(Code.UNAUTHENTICATED):
            await stock.next()
