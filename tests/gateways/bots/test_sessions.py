"""Who a bot is, what its session is called, and whose update does nobody any harm."""

import asyncio
import time
import uuid

import grpc
import pytest

from latent.errors import ConfigError
from latent.gateways.bots import BotsInterface
from latent.gateways.bots.errors import (
    BotSessionClosedError,
    DuplicateBotSessionError,
    InvalidArgumentError,
    RetriableError,
)
from latent.wire import bots_pb2 as pb
from tests.certificates import certificate
from tests.gateways.bots.client import (
    BOT_TERMINATING,
    OK,
    UNHEALTHY,
    UNSPECIFIED,
    M,
    Wire,
    lease_of,
    session_of,
)
from tests.gateways.bots.kit import MASTER, Site, Stepped, refused
from tests.gateways.peer_fakes import on_loop, twisted

Code = grpc.StatusCode


@on_loop
async def test_a_bot_gets_a_session_with_a_name_of_its_own(site):
    """The instance and a uuid4; the rest is as the bot said it; the next update is due when the keep-alive is over."""
    async with Stepped(site, os="linux") as bot:
        before = time.time()
        answer = await bot.create()
    instance, _, name = answer.name.rpartition("/")
    assert (instance, uuid.UUID(name).version) == ("", 4)
    assert (answer.bot_id, answer.status, answer.version) == ("plain:plain-password", OK, "test")
    assert answer.worker == bot.session.worker
    assert answer.expire_time.seconds + answer.expire_time.nanos / 1e9 >= before + 20


@on_loop
async def test_capabilities_are_told_before_anything_else(site):
    """To anybody, for the instances that there are."""
    async with Wire(site.port) as wire:
        answer = await wire.capabilities("other")
        assert (answer.execution.exec_enabled, answer.low.major, answer.high.major) == (True, 2, 2)
        with refused(Code.INVALID_ARGUMENT, "no instance 'unknown'"):
            await wire.capabilities("unknown")


@on_loop
async def test_events_are_not_taken(site):
    """The call is in the API and has no use."""
    async with Wire(site.port) as wire:
        with refused(Code.UNIMPLEMENTED):
            await wire.post_event(name="x", msg="y")


@on_loop
async def test_a_bot_needs_an_id(site):
    """Without one it is refused, as is one whose capacity is no number."""
    async with Wire(site.port) as wire:
        with refused(Code.INVALID_ARGUMENT, "bot_id"):
            await wire.create(session_of(""))
        for capacity in ("0", "many", "-1", "1" * 30):
            with refused(Code.INVALID_ARGUMENT, "capacity"):
                await wire.create(session_of("plain:plain-password", capacity=capacity))
    assert site.bots.count_bots() == 0


@pytest.mark.parametrize(
    ("bot_id", "token"),
    [
        ("plain:plain-password", None),
        ("plain-password", None),
        ("any-host-at-all", "plain-password"),
        ("plain:nonsense", "plain-password"),
    ],
)
@on_loop
async def test_a_plain_workers_bot_shows_its_password(site, bot_id, token):
    """In the metadata of its call, or in its bot_id."""
    async with Stepped(site, bot_id=bot_id, token=token) as bot:
        await bot.create()
    assert [session.worker for session in site.controller.sessions] == ["plain"]


@pytest.mark.parametrize(
    ("bot_id", "token"),
    [
        ("plain:wrong", None),
        ("nobody:plain-password", None),
        ("second:plain-password", None),
        ("wrong", None),
        ("plain", "wrong"),
    ],
)
@on_loop
async def test_a_stranger_is_refused(site, bot_id, token):
    """Its secret is not told to anybody in turn."""
    async with Stepped(site, bot_id=bot_id, token=token) as bot:
        with refused(Code.UNAUTHENTICATED) as found:
            await bot.create()
    assert "plain-password" not in found[0].details()
    assert site.bots.count_bots() == 0


@on_loop
async def test_a_bot_that_comes_again_has_another_session(site):
    """The name of the one before is worth nothing, and a stale bot's update does its successor no harm."""
    build = await site.submit()
    async with Stepped(site) as stale, Stepped(site) as bot:
        await stale.create()
        await stale.say(pb.ACTIVE).update()
        await bot.create()
        assert bot.session.name != stale.session.name
        for _ in range(2):
            with refused(Code.INVALID_ARGUMENT, "closed"):
                await stale.update()
        lease = (await bot.update(timeout=10)).leases
        assert [one.state for one in lease] == [pb.PENDING]
        await bot.say(pb.ACTIVE).update()
        with refused(Code.INVALID_ARGUMENT):
            await stale.say(pb.COMPLETED).update()
        await bot.say(pb.COMPLETED).update()
        assert (await site.finished(build)).attempts == 2
    assert site.bots.count_bots() == 1


@on_loop
async def test_one_session_at_a_time_is_made_for_a_bot(site):
    """A second call that comes while the first is being answered is a duplicate: ABORTED, and the first goes on."""
    session = pb.BotSession(bot_id="plain:plain-password", status=pb.OK)
    first = asyncio.ensure_future(site.bots.create_bot_session(session, None, 1.0))
    with pytest.raises(DuplicateBotSessionError):
        await asyncio.ensure_future(
            site.bots.create_bot_session(pb.BotSession.FromString(session.SerializeToString()), None, 1.0)
        )
    name = (await first).name
    assert [*site.bots._bots] == [name]


@on_loop
async def test_an_update_is_for_the_session_that_it_names(site):
    """Another name in the request, another bot_id, a name that nobody has: refused, and the session goes on."""
    async with Stepped(site) as bot, Stepped(site, bot_id="second:second-password") as second:
        await bot.create()
        await second.create()
        with refused(Code.INVALID_ARGUMENT, "not the same"):
            await bot.wire.update(bot.session, name="x")
        with refused(Code.INVALID_ARGUMENT, "no session of this name"):
            await bot.wire.update(M["BotSession"](name=f"/{uuid.uuid4()}", bot_id="plain"))
        stolen = session_of("second:second-password")
        stolen.name = bot.session.name
        with refused(Code.INVALID_ARGUMENT, "another bot's"):
            await bot.wire.update(stolen)
        await bot.update()
        await second.update()


@on_loop
async def test_instances_know_nothing_of_one_another(site):
    """A worker's bot comes to its own instance; names, builds and counts of the others are not for it."""
    here = await site.submit(b"here")
    there = await site.submit(b"there", labels={"instance": "other"})
    async with Stepped(site, instance="other") as lost, Stepped(site) as bot:
        with refused(Code.INVALID_ARGUMENT, "belongs to instance ''"):
            await lost.create()
        async with Stepped(site, bot_id="apart:apart-password", instance="other") as apart:
            await apart.create()
            assert apart.session.name.startswith("other/")
            assert apart.lease.payload.value == b"there"
            await bot.create()
            assert bot.lease.payload.value == b"here"
            strange = session_of("apart:apart-password")
            strange.name = "/" + apart.session.name.partition("/")[2]
            with refused(Code.INVALID_ARGUMENT, "no session of this name"):
                await bot.wire.update(strange)
            strange.name = "nowhere/" + apart.session.name.partition("/")[2]
            with refused(Code.INVALID_ARGUMENT):
                await bot.wire.update(strange)
            for one in (bot, apart):
                await one.say(pb.ACTIVE).update()
                await one.say(pb.COMPLETED).update()
        await site.finished(here)
        await site.finished(there)
        with refused(Code.INVALID_ARGUMENT, "no instance"):
            await lost.wire.create(lost.session, parent="nowhere")


@on_loop
async def test_bots_are_counted_by_what_they_say(site):
    """Those of one instance."""
    async with Stepped(site) as bot, Stepped(site, bot_id="second:second-password", status=UNSPECIFIED) as second:
        await bot.create()
        await second.create()
        counts = [site.bots.count_bots_by_status(status) for status in range(5)]
        assert (site.bots.count_bots(), counts) == (2, [1, 1, 0, 0, 0])
        second.session.status = UNHEALTHY
        await second.update()
        assert [site.bots.count_bots_by_status(status) for status in range(5)] == [0, 1, 1, 0, 0]
    assert site.gateway.instances["other"].count_bots() == 0


@on_loop
async def test_a_bot_that_terminates_is_gone(site):
    """At once when it has nothing to do; its worker is without an agent then."""
    async with Stepped(site) as bot:
        await bot.create()
        bot.session.status = BOT_TERMINATING
        await bot.update()
        assert site.bots.count_bots() == 0
        with refused(Code.INVALID_ARGUMENT, "terminated"):
            await bot.update()


@on_loop
async def test_a_session_that_misses_its_time_is_reaped(site):
    """What it had is tried again by another."""
    build = await site.submit()
    async with Stepped(site) as bot, Stepped(site, bot_id="second:second-password") as second:
        await bot.create()
        await bot.say(pb.ACTIVE).update()
        (session,) = site.controller.sessions
        assert session.patience is None  # it has a lease: it is missed as soon as any agent
        site.controller.sessions.timeout = 0.1
        assert await twisted(session.when_closed()) == "its agent was silent for 0.1 s"
        site.controller.sessions.timeout = 60
        with refused(Code.INVALID_ARGUMENT, "silent"):
            await bot.say(pb.COMPLETED).update()
        await second.create(timeout=10)
        await second.say(pb.ACTIVE).update()
        await second.say(pb.COMPLETED).update()
        assert (await site.finished(build)).attempts == 2


@on_loop
async def test_a_bot_without_work_may_be_silent_for_the_keep_alive(site):
    """However soon other agents are missed."""
    async with Stepped(site, status=UNHEALTHY) as bot:
        await bot.create()
        (session,) = site.controller.sessions
        assert session.patience == 20


@on_loop
async def test_malformed_messages_are_refused(site):
    """With a status that says so, not as an error of the controller's."""
    async with Wire(site.port) as wire:
        for name in ("CreateBotSession", "UpdateBotSession", "PostBotEventTemp"):
            with refused(Code.INVALID_ARGUMENT, "are not a"):
                await wire.call("google.devtools.remoteworkers.v1test2.Bots", name, "BotSession", b"\xff\xff\xff")
    assert not site.gateway.service.exceptions


@on_loop
async def test_a_controller_that_stops_says_when_to_come_back(site):
    """UNAVAILABLE with the time to wait, not counted as an exception."""
    async with Stepped(site) as bot:
        await bot.create()
        site.bots.stop()
        with refused(Code.UNAVAILABLE, "stopping") as found:
            await bot.update()
    details = dict(found[0].trailing_metadata())["grpc-status-details-bin"]
    status = M["Status"].FromString(details)
    info = M["RetryInfo"]()
    assert (status.code, status.details[0].type_url) == (14, "type.googleapis.com/google.rpc.RetryInfo")
    info.MergeFromString(status.details[0].value)
    assert info.retry_delay.seconds == 1
    assert not site.gateway.service.exceptions
    assert BotsInterface.create_bot_session_ignored_exceptions == (RetriableError,)
    assert BotsInterface.update_bot_session_ignored_exceptions == (RetriableError,)


def test_an_instance_is_named_once():
    """A second name is an AssertionError."""
    interface = BotsInterface(None)
    interface.set_instance_name("one")
    with pytest.raises(AssertionError):
        interface.set_instance_name("two")
    assert (interface.instance_name, interface.job_assignment_interval) == ("one", 1.0)
    assert BotsInterface.SERVICE_NAME == "google.devtools.remoteworkers.v1test2.Bots"


@on_loop
async def test_python_callers_have_the_same_interface(site):
    """Without gRPC: messages in, messages and metadata out, and errors with a type."""
    await site.submit()
    bots = site.bots
    with pytest.raises(InvalidArgumentError):
        await bots.create_bot_session(pb.BotSession(), None)
    session = await bots.create_bot_session(pb.BotSession(bot_id="plain-password", status=pb.OK), None, 10.0)
    assert len(session.leases) == 1
    session, metadata = await bots.update_bot_session(session, None, 10.0)
    assert [key for key, _ in metadata] == ["executeoperationmetadata-bin"]
    session.name = "unknown"
    with pytest.raises(BotSessionClosedError):
        await bots.update_bot_session(session, None)


@on_loop
async def test_a_loss_closes_the_session(site):
    """A lease that is nobody's, or a state that makes no sense: DATA_LOSS, and the bot has to begin anew."""
    async with Stepped(site) as bot:
        for wrong in (lease_of("77"), lease_of("x"), lease_of("1", pb.ACTIVE), lease_of("1", pb.CANCELLED), lease_of("1", 77)):
            bot.session.name = ""
            await bot.create()
            with refused(Code.DATA_LOSS):
                await bot.update(wrong)
            with refused(Code.INVALID_ARGUMENT, "disagree"):
                await bot.update()


def test_a_bots_worker_needs_a_place_to_come_to(tmp_path):
    """The configuration is refused where nothing listens, or not for its instance."""
    from latent.config.loader import load

    text = (
        "from latent.plugins import worker\nc['workers'] = [worker.Worker('w', 'p', labels={'agent': 'bot', 'instance': 'a'})]\n"
    )
    path = tmp_path / "master.cfg"
    path.write_text(text)
    with pytest.raises(ConfigError, match="nothing listens for bots"):
        load(path)
    path.write_text(text + "c['protocols'] = {'bots': {'instances': ['b']}}\n")
    with pytest.raises(ConfigError, match="instance 'a', which is not served"):
        load(path)
    path.write_text(text + "c['protocols'] = {'bots': {'instances': ['a'], 'keep_alive': 30}}\n")
    assert load(path).bots.keep_alive == 30


@on_loop
async def test_counts_are_metrics(site):
    """One number for each instance and status, in the text that Prometheus reads."""
    async with Stepped(site) as bot:
        await bot.create()
        text = site.controller.gauges.text()
    assert 'latent_bots{instance="",status="OK"} 1\n' in text
    assert 'latent_bots{instance="other",status="UNHEALTHY"} 0\n' in text
    assert "# TYPE latent_bot_calls_failed gauge\n" in text


@on_loop
async def test_bots_come_over_tls(tmp_path):
    """With an access token, which stock bots only send so."""
    path, key = certificate(tmp_path)
    tls = {"certificate": str(path), "key": str(key)}
    master = MASTER.replace('"keep_alive": 20', f'"keep_alive": 20, "tls": {tls}')
    site = Site(tmp_path, master)
    await twisted(site.start())
    try:
        credentials = grpc.ssl_channel_credentials(path.read_bytes())
        async with Wire(site.port, "plain-password", credentials=credentials) as wire:
            assert (await wire.create(session_of("a-host"), timeout=1)).name
    finally:
        await twisted(site.stop())
