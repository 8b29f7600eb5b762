"""What becomes of a build that is a payload: given, acknowledged, finished, tried again, cancelled."""

import grpc
import pytest

from latent.model import BuildRequest, BuildState, Payload, Requirements, Result, RunStatus, Step
from tests.gateways.bots.client import (
    ACTIVE,
    BOT_TERMINATING,
    CANCELLED,
    COMPLETED,
    OK,
    PENDING,
    UNHEALTHY,
    M,
    lease_of,
)
from tests.gateways.bots.kit import TYPE, Stepped, refused
from tests.gateways.peer_fakes import on_loop, twisted

Code = grpc.StatusCode


@on_loop
async def test_a_bot_gets_the_payload_as_it_was_submitted(site):
    """Byte for byte, with what the build requires; and its result is kept the same way."""
    value = bytes(range(256)) * 10
    build = await site.submit(value, labels={"os": "linux"})
    async with Stepped(site, os=["linux", "posix"]) as bot:
        await bot.create()
        assert bot.lease.state == PENDING
        assert bot.lease.payload == M["Lease"](payload={"type_url": TYPE, "value": value}).payload
        assert [(one.key, one.value) for one in bot.lease.requirements.properties] == [("os", "linux")]
        await bot.say(ACTIVE).update()
        assert (await site.build(build)).state is BuildState.RUNNING
        answer = await bot.say(COMPLETED, result=("type/answer", b"\x00\xff")).update()
        assert not answer.leases
    done = await site.finished(build)
    assert (done.result, done.attempts) == (Result.SUCCESS, 1)
    assert await site.answer(build) == Payload("type/answer", b"\x00\xff")


@pytest.mark.parametrize("reported", [0, 1, 3, 500])
@on_loop
async def test_however_many_leases_a_new_bot_reports_it_gets_one(site, reported):
    """What it had is not its new session's."""
    for _ in range(2):
        await site.submit()
    leases = [lease_of(str(number)) for number in range(10, 10 + reported)]
    async with Stepped(site, leases=leases) as bot:
        answer = await bot.create()
        assert len(answer.leases) == 1
        over = [lease_of(str(number), COMPLETED) for number in range(1000, 1000 + reported)]
        answer = await bot.update(bot.lease, *over)
        assert len(answer.leases) == 1


@on_loop
async def test_a_bot_takes_what_it_has_the_properties_for(site):
    """All that the build requires is among them; a property may have several values, and more than are required."""
    build = await site.submit(labels={"os": "linux", "arch": "x86-64"})
    async with Stepped(site, os="linux") as poor, Stepped(site, bot_id="second:second-password") as bot:
        assert not (await poor.create()).leases
        assert "is not offered" in (await twisted(site.controller.build(build.id))).why
        for key, value in (("os", "linux"), ("arch", "x86-32"), ("arch", "x86-64"), ("disk", "big")):
            bot.session.worker.properties.add(key=key, value=value)
        assert len((await bot.create()).leases) == 1


@on_loop
async def test_a_bot_that_is_not_well_gets_nothing(site):
    """Until it says that it is OK."""
    await site.submit()
    async with Stepped(site, status=UNHEALTHY) as bot:
        assert not (await bot.create()).leases
        assert not (await bot.update(timeout=30)).leases
        bot.session.status = OK
        assert len((await bot.update()).leases) == 1


@on_loop
async def test_builds_with_steps_are_not_for_bots(site):
    """And payloads for nobody else, whatever an agent calls itself."""
    steps = BuildRequest(builder="b", steps=(Step(name="s", command="true"),), requirements=Requirements(labels={"agent": "bot"}))
    queued = await twisted(site.controller.submit(steps))
    async with Stepped(site) as bot:
        assert not (await bot.create()).leases
        assert "agent=bot is not offered" in (await twisted(site.controller.build(queued.id))).why
    for session in site.controller.sessions:
        session.asks_until = 0.0
    payload = await site.submit()
    session = await twisted(site.controller.sessions.enrol("second-password", "peer"))
    labels = {"agent": "bot"}
    await twisted(site.controller.sessions.attach(session, capacity=1, labels=labels, info={"a": 1}))
    await twisted(site.controller.scheduler.when_planned())
    assert (await site.build(payload)).state is BuildState.QUEUED
    wrong = await twisted(site.controller.sessions.enrol("apart-password", "peer"))
    with pytest.raises(Exception, match="declared to have a bot"):
        await twisted(site.controller.sessions.attach(wrong, capacity=1, labels={}, info={"a": 1}))


@on_loop
async def test_the_oldest_goes_first_and_a_priority_before_it(site):
    """A build's priority can be changed while it waits."""
    builds = [await site.submit(b"%d" % number) for number in range(3)]
    urgent = await site.submit(b"urgent", priority=5)
    last = await site.submit(b"last")
    await twisted(site.controller.reprioritise(last.id, 9))
    assert (await site.build(last)).request.priority == 9
    await twisted(site.controller.reprioritise(builds[0].id, -1))
    got = []
    async with Stepped(site) as bot:
        await bot.create()
        for _ in range(5):
            got.append(bot.lease.payload.value)
            await bot.say(ACTIVE).update()
            await bot.say(COMPLETED).update(timeout=2)
    assert got == [b"last", b"urgent", b"1", b"2", b"0"]
    assert (await site.finished(urgent)).result is Result.SUCCESS
    done = await twisted(site.controller.reprioritise(urgent.id, 1))
    assert done.request.priority == 5


@on_loop
async def test_a_lease_that_the_bot_does_not_have_yet_is_sent_again(site):
    """The answer that had it may have been lost. One that it had acknowledged and has no more is a loss: tried again."""
    build = await site.submit()
    async with Stepped(site) as bot:
        await bot.create()
        lease = bot.lease
        del bot.session.leases[:]
        await bot.update()
        assert bot.lease == lease
        await bot.say(ACTIVE).update()
        del bot.session.leases[:]
        with refused(Code.DATA_LOSS, "does not have it any more"):
            await bot.update()
        bot.session.name = ""
        await bot.create(timeout=10)
        assert bot.lease.id != lease.id
        await bot.say(ACTIVE).update()
        await bot.say(COMPLETED).update()
    assert (await site.finished(build)).attempts == 2
    first, second = await site.runs(build)
    assert (first.run.status, second.run.status) == (RunStatus.INTERRUPTED, RunStatus.COMPLETED)


@on_loop
async def test_saying_it_again_changes_nothing(site):
    """Acknowledged twice, completed twice, completed without having been acknowledged."""
    first, second = await site.submit(), await site.submit()
    async with Stepped(site) as bot:
        await bot.create()
        await bot.say(ACTIVE).update()
        await bot.update()
        done = M["Lease"]()
        done.CopyFrom(bot.say(COMPLETED).lease)
        await bot.update(timeout=2)
        assert bot.lease.id != done.id
        answer = await bot.update(done, bot.lease)
        assert [lease.id for lease in answer.leases] != [done.id]
        await bot.say(COMPLETED).update()
        assert not (await bot.update(done)).leases
    for build in (first, second):
        finished = await site.finished(build)
        assert (finished.result, finished.attempts) == (Result.SUCCESS, 1)


@pytest.mark.parametrize(("code", "name"), [(13, "INTERNAL"), (14, "UNAVAILABLE")])
@on_loop
async def test_a_bot_that_blames_what_it_stands_on_is_believed(site, code, name):
    """The build is tried again, up to five times; then it is aborted."""
    build = await site.submit()
    async with Stepped(site) as bot:
        await bot.create()
        for attempt in range(1, 6):
            assert bot.lease.state == PENDING
            await bot.say(ACTIVE).update()
            assert (await site.build(build)).attempts == attempt
            await bot.say(COMPLETED, code, "no disk").update(timeout=3)
        assert not bot.session.leases
    done = await site.finished(build)
    assert (done.result, done.reason) == (Result.EXCEPTION, f"aborted: {name}: no disk (tried 5 times)")


@pytest.mark.parametrize(
    ("code", "result", "status"),
    [(9, Result.FAILURE, RunStatus.FAILED), (3, Result.FAILURE, RunStatus.FAILED), (4, Result.TIMEOUT, RunStatus.TIMEOUT)],
)
@on_loop
async def test_any_other_error_is_the_builds(site, code, result, status):
    """It is not tried again."""
    build = await site.submit()
    async with Stepped(site) as bot:
        await bot.create()
        await bot.say(COMPLETED, code, "wrong").update()
    done = await site.finished(build)
    (run,) = await site.runs(build)
    assert (done.result, run.run.status, done.attempts) == (result, status, 1)
    assert done.reason.endswith(": wrong")


@on_loop
async def test_an_action_result_says_how_it_ended(site):
    """Its exit code is the run's."""
    build = await site.submit()
    value = M["ActionResult"](exit_code=3).SerializeToString()
    async with Stepped(site) as bot:
        await bot.create()
        await bot.say(COMPLETED, result=("type.googleapis.com/build.bazel.remote.execution.v2.ActionResult", value)).update()
    done = await site.finished(build)
    (run,) = await site.runs(build)
    assert (done.result, run.run.exit_code) == (Result.FAILURE, 3)


@on_loop
async def test_a_session_that_closes_gives_its_lease_to_another(site):
    """With one try more; a bot that terminates may finish what it has, and gets nothing more."""
    build = await site.submit()
    async with Stepped(site) as bot, Stepped(site, bot_id="second:second-password") as second:
        await bot.create()
        await bot.say(ACTIVE).update()
        await bot.create()
        await bot.say(ACTIVE).update()
        assert (await site.build(build)).attempts == 2
        waiting = await site.submit()
        bot.session.status = BOT_TERMINATING
        assert len((await bot.update()).leases) == 1
        assert not (await bot.say(COMPLETED).update()).leases
        assert (await site.finished(build)).attempts == 2
        assert len((await second.create()).leases) == 1
        await second.say(COMPLETED).update()
        await site.finished(waiting)


@on_loop
async def test_a_build_that_outlives_five_sessions_is_aborted(site):
    """Each session that is closed gives it back, with one try more."""
    build = await site.submit()
    async with Stepped(site) as bot:
        for attempt in range(1, 6):
            await bot.create(timeout=10)
            await bot.say(ACTIVE).update()
            assert (await site.build(build)).attempts == attempt
        assert not (await bot.create()).leases
    done = await site.finished(build)
    assert (done.result, done.attempts) == (Result.EXCEPTION, 5)
    assert done.reason.startswith("aborted: ")
    assert done.reason.endswith("(tried 5 times)")


@on_loop
async def test_a_cancellation_is_told_and_freed(site):
    """The lease comes back as CANCELLED until the bot says so itself; then the slot is free."""
    build, following = await site.submit(), await site.submit()
    async with Stepped(site) as bot:
        await bot.create()
        await bot.say(ACTIVE).update()
        await site.cancel(build)
        for _ in range(2):
            bot.lease.state = ACTIVE
            await bot.update()
            assert bot.lease.state == CANCELLED
        await bot.say(CANCELLED, 1).update(timeout=2)
        assert (await site.finished(build)).result is Result.CANCELLED
        assert bot.lease.state == PENDING
        await bot.say(COMPLETED).update()
    assert (await site.finished(following)).result is Result.SUCCESS


@on_loop
async def test_a_cancelled_lease_that_was_done_is_cancelled(site):
    """Whichever was first; the bot may also just drop it, or never have begun."""
    one, two, three = [await site.submit() for _ in range(3)]
    async with Stepped(site) as bot:
        await bot.create()
        await bot.say(ACTIVE).update()
        await site.cancel(one)
        await bot.say(COMPLETED).update()
        assert bot.lease.state == CANCELLED
        assert (await site.finished(one)).result is Result.CANCELLED
        del bot.session.leases[:]
        await bot.update(timeout=2)
        assert bot.lease.state == PENDING
        await site.cancel(two)
        await bot.update()
        assert bot.lease.state == CANCELLED
        await bot.update(timeout=2)
        assert (await site.finished(two)).result is Result.CANCELLED
        await bot.say(COMPLETED).update()
    assert (await site.finished(three)).result is Result.SUCCESS


@on_loop
async def test_a_cancelled_lease_comes_back_only_when_asked(site):
    """A bot that cancels by itself is a loss: the build is tried again."""
    build = await site.submit()
    async with Stepped(site) as bot:
        await bot.create()
        await bot.say(ACTIVE).update()
        with refused(Code.DATA_LOSS, "is active here, and the bot says CANCELLED"):
            await bot.say(CANCELLED, 1).update()
        await bot.create(timeout=10)
        await bot.say(COMPLETED).update()
    assert (await site.finished(build)).attempts == 2


@on_loop
async def test_each_lease_comes_with_its_metadata(site):
    """The stage that it is in and, where the payload is one, the action's digest."""
    digest = M["Digest"](hash="ab" * 32, size_bytes=42)
    await site.submit(digest.SerializeToString(), type_url="type.googleapis.com/build.bazel.remote.execution.v2.Digest")
    await site.submit(b"\xff\xff", type_url="type.googleapis.com/build.bazel.remote.execution.v2.Digest")
    async with Stepped(site, bot_id="wide:wide-password", capacity=2) as bot:
        await bot.create()
        bot.session.leases[0].state = ACTIVE
        call = bot.wire.update(bot.session)
        answer = await call
        told = [value for key, value in await call.trailing_metadata() if key == "executeoperationmetadata-bin"]
    stages = {2: PENDING, 3: ACTIVE}
    found = [M["ExecuteOperationMetadata"].FromString(value) for value in told]
    assert [stages[one.stage] for one in found] == [lease.state for lease in answer.leases] == [ACTIVE, PENDING]
    assert (found[0].action_digest, found[1].action_digest) == (digest, M["Digest"]())


@on_loop
async def test_a_bot_may_take_several_leases(site):
    """As many as it says and its worker is declared for; each is reported by itself, and a free slot is filled."""
    builds = [await site.submit(b"%d" % number) for number in range(5)]
    async with Stepped(site, bot_id="wide:wide-password", capacity=2) as bot:
        await bot.create()
        await bot.update()
        assert [lease.payload.value for lease in bot.session.leases] == [b"0", b"1"]
        for lease in bot.session.leases:
            lease.state = ACTIVE
        await bot.update()
        bot.session.leases[0].state = COMPLETED
        await bot.update()
        assert [(lease.payload.value, lease.state) for lease in bot.session.leases] == [(b"1", ACTIVE), (b"2", PENDING)]
        bot.session.leases[1].state = ACTIVE
        await bot.update()
        with refused(Code.DATA_LOSS, "twice"):
            await bot.update(bot.session.leases[0], bot.session.leases[0])
        bot.session.worker.configs[0].value = "50"
        await bot.create(timeout=10)
        await bot.update()
        assert len(bot.session.leases) == 3
        while bot.session.leases:
            for lease in bot.session.leases:
                lease.state = COMPLETED
            await bot.update()
    assert [(await site.finished(build)).result for build in builds] == [Result.SUCCESS] * 5


@on_loop
async def test_a_lease_that_was_not_renewed_is_lost(site):
    """The build is tried again, and the bot that comes too late is told so."""
    build = await site.submit()
    async with Stepped(site) as bot:
        await bot.create()
        site.controller.dispatcher.lease_seconds = 0.05
        await bot.say(ACTIVE).update()
        run = site.controller.dispatcher.run_of_build(build.id)
        await twisted(site.controller.dispatcher.when_over(run))
        site.controller.dispatcher.lease_seconds = 60
        with refused(Code.DATA_LOSS, "is not the bot's here"):
            await bot.update()
        await bot.create(timeout=10)
        await bot.say(ACTIVE).update()
        await bot.say(COMPLETED).update()
    assert (await site.finished(build)).attempts == 2
