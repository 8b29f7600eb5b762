"""The server's rules of the peer protocol, call by call, over real gRPC on loopback."""

import asyncio
import json

import grpc
import jwt
import pytest
from twisted.internet.defer import Deferred

from latent.errors import StoreError
from latent.gateways.peer.tokens import LIFETIME, REFRESH_LEEWAY
from latent.model import Result, Step, StepStatus
from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import SECRET, on_loop, twisted
from tests.gateways.stock_agent import StockAgent

Code = grpc.StatusCode


def refused(code, match=""):
    """The call inside is answered with ``code``."""
    return pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is code and match in error.details())


def agent(gateway, *args, **kwargs):
    return StockAgent(gateway.port, *args, **kwargs)


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


@on_loop
async def test_a_version_that_is_no_number_is_refused(gateway, world):
    """Nonsense in the version's place gets a clean status."""
    async with agent(gateway, version="sixteen") as stock:
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


# --- Next ------------------------------------------------------------------------------------------------------------------


@on_loop
async def test_next_parks_until_there_is_work(gateway, world):
    """A parked Next is answered by the next build."""
    async with agent(gateway) as stock:
        await stock.attach()
        parked = stock.next()
        await world.until(lambda: world.parked)
        world.submit("true")
        assert (await parked).workflow.id == "1"


@on_loop
async def test_next_tells_the_labels_once(gateway, world):
    """The filter's labels are added to the registered ones."""
    async with agent(gateway) as stock:
        await stock.attach(labels={"disk": "ssd"})
        world.submit("true")
        await stock.next()
        assert world.sessions[1].labels == {
            "platform": "linux/amd64",
            "backend": "local",
            "hostname": "host-1",
            "disk": "ssd",
            "repo": "*",
        }
        assert world.sessions[1].info["version"] == "3.17.0"


@on_loop
async def test_a_cancelled_next_takes_nothing(gateway, world):
    """When the client of a parked Next goes, the build is left for the next one."""
    async with agent(gateway) as stock:
        await stock.attach()
        parked = stock.next()
        await world.until(lambda: world.parked)
        removed = world.parked[0][1]
        gone = asyncio.get_running_loop().create_future()
        removed.addBoth(gone.set_result)
        parked.cancel()
        await gone
        run = world.submit("true")
        assert list(world.queue) == [run]
        assert (await stock.next()).workflow.id == "1"


@on_loop
async def test_a_lease_whose_answer_got_lost_is_given_again(gateway, world):
    """A lease that was not acknowledged comes with the next Next."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        assert (await stock.next()).workflow.id == "1"
        assert (await stock.next()).workflow.id == "1"


@on_loop
async def test_next_is_answered_empty_after_the_longest_wait(world):
    """A client that never times out is made to ask again."""
    gateway = world.gateway(longest_wait=0.05)
    await twisted(gateway.start())
    try:
        async with agent(gateway) as stock:
            await stock.attach()
            assert not (await stock.next()).HasField("workflow")
            assert not world.parked
            world.submit("true")
            await stock.next()
            with refused(Code.DEADLINE_EXCEEDED):
                await stock.wait("1")
    finally:
        await twisted(gateway.stop(0))


@on_loop
async def test_the_payload_is_what_a_stock_agent_reads(gateway, world):
    """One stage a step, an environment that is never null, shell commands; the rest is in objects that it skips."""
    world.submit(
        "make all",
        Step(
            name="argv",
            command=("printf", "a b", "$x"),
            env={"X": "1"},
            workdir="sub dir",
            timeout=5.0,
            max_time=9.0,
            always_run=True,
        ),
        timeout=61.0,
        builder="project",
    )
    async with agent(gateway) as stock:
        await stock.attach()
        workflow = (await stock.next()).workflow
    assert (workflow.id, workflow.timeout) == ("1", 2)
    payload = json.loads(workflow.payload)
    assert (payload["network"], payload["volume"], payload["secrets"]) == ("", "", [])
    (first,), (second,) = (stage["steps"] for stage in payload["pipeline"])
    assert (first["name"], first["uuid"], first["type"], first["image"]) == ("s0", "uuid-1-0", "commands", "bash")
    assert first["commands"] == ["make all"]
    assert first["on_success"] is True
    assert first["on_failure"] is False
    assert first["environment"]["CI_REPO"] == "project"
    assert first["environment"]["CI_PIPELINE_NUMBER"] == "101"
    assert first["environment"]["LATENT_RUN_ID"] == "1"
    assert first["environment"]["LATENT_ATTEMPT"] == "1"
    assert second["commands"] == ["mkdir -p -- 'sub dir'", "cd -- 'sub dir'", "printf 'a b' '$x'"]
    assert second["environment"]["X"] == "1"
    assert second["on_failure"] is True
    assert second["latent"] == {
        "command": ["printf", "a b", "$x"],
        "env": {"X": "1"},
        "workdir": "sub dir",
        "timeout": 5.0,
        "max_time": 9.0,
        "always_run": True,
    }
    assert payload["latent"] == {
        "run_id": 1,
        "build_id": 101,
        "builder": "project",
        "worker": "w",
        "attempt": 1,
        "timeout": 61.0,
    }


@on_loop
async def test_a_build_too_big_for_a_message_ends_as_an_exception(gateway, world):
    """A build that no agent can be given ends with a reason, and the agent gets the next one."""
    big = world.submit("x" * (5 * 1024 * 1024))
    world.submit("true")
    async with agent(gateway) as stock:
        await stock.attach()
        assert (await stock.next()).workflow.id == "2"
    assert big.outcomes[0].result is Result.EXCEPTION
    assert "bytes" in big.outcomes[0].error


# --- a run -----------------------------------------------------------------------------------------------------------------


@on_loop
async def test_init_that_no_agent_means_is_refused(gateway, world):
    """Init without a start time, or cancelled, or of an id that is no number."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        with refused(Code.INVALID_ARGUMENT):
            await stock.init("1", started=0)
        with refused(Code.INVALID_ARGUMENT):
            await stock.init("1", canceled=True)
        for wrong in ("", "one", "9" * 30, "1.0"):
            with refused(Code.INVALID_ARGUMENT, "workflow id"):
                await stock.init(wrong)
        assert run.activations == 0


@on_loop
async def test_another_sessions_run_is_refused(gateway, world):
    """Init, Extend, Update, Log, Done and Wait of somebody else's run."""
    async with agent(gateway) as owner, agent(gateway, "two") as other:
        await owner.attach()
        await other.attach()
        run = world.submit("true")
        await owner.next()
        other.started = 1
        with refused(Code.PERMISSION_DENIED):
            await other.init("1")
        with refused(Code.PERMISSION_DENIED):
            await other.call("Extend", pb.ExtendRequest(id="1"))
        with refused(Code.PERMISSION_DENIED):
            await other.wait("1")
        with refused(Code.PERMISSION_DENIED):
            await other.done("1")
        with refused(Code.INVALID_ARGUMENT):
            await other.step("1", "uuid-1-0")
        with refused(Code.NOT_FOUND):
            await other.log("uuid-1-0", "hello")
        assert (run.changes, run.lines, run.outcomes, run.activations) == ([], [], [], 0)


@on_loop
async def test_init_of_a_finished_run_is_refused(gateway, world):
    """A run that is over does not begin again."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.done("1")
        with refused(Code.PERMISSION_DENIED, "over"):
            await stock.init("1")


@on_loop
async def test_wait_comes_before_init_and_hears_of_the_end(gateway, world):
    """Wait may precede Init; it ends with the run."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        waiting = asyncio.ensure_future(_answer(stock.wait("1")))
        await world.until(lambda: world.runs[1].waiting)
        await stock.init("1")
        await stock.done("1")
        assert (await waiting).canceled is False


@on_loop
async def test_wait_for_an_unknown_run_returns_at_once(gateway, world):
    """Nobody waits for what nobody knows."""
    async with agent(gateway) as stock:
        await stock.attach()
        assert (await stock.wait("99")).canceled is False


@on_loop
async def test_wait_ends_with_an_error_when_the_lease_is_lost(gateway, world):
    """An expired lease is an error, not a cancellation."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        waiting = asyncio.ensure_future(_answer(stock.wait("1")))
        await world.until(lambda: run.waiting)
        world.lose(run)
        with refused(Code.PERMISSION_DENIED, "expired"):
            await waiting


@on_loop
async def test_a_steps_update_must_name_a_step_of_the_run(gateway, world):
    """A step of another run is refused."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        await stock.init("1")
        with refused(Code.INVALID_ARGUMENT, "not a step of run 1"):
            await stock.update("1", "uuid-7-0")


@on_loop
async def test_an_update_that_comes_twice_counts_once(gateway, world):
    """Updates sent again, or overtaken by later ones, change nothing."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.step("1", "uuid-1-0")
        await stock.step("1", "uuid-1-0")
        assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.SUCCESS]


@on_loop
async def test_after_the_end_only_ends_of_steps_are_taken(gateway, world):
    """A step can't start to run when its run is over."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.done("1")
        await stock.update("1", "uuid-1-0", skipped=True)


@on_loop
async def test_steps_still_running_at_the_end_are_killed(gateway, world):
    """Done ends the steps that nobody ended: killed if they ran, skipped if not."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true", "true")
        await stock.next()
        await stock.init("1")
        await stock.update("1", "uuid-1-0")
        await stock.done("1", canceled=True)
        assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.KILLED]
        assert run.statuses("s1") == [StepStatus.SKIPPED]


@on_loop
async def test_done_said_twice_counts_once(gateway, world):
    """Done is idempotent."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.step("1", "uuid-1-0")
        await stock.done("1")
        await stock.done("1")
        assert {outcome.result for outcome in run.outcomes} == {Result.SUCCESS}
        assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.SUCCESS]


@on_loop
async def test_done_cancelled_but_never_started_is_refused(gateway, world):
    """No agent can cancel what it has not begun."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        with refused(Code.INVALID_ARGUMENT):
            await stock.done("1", started=0, canceled=True)
        assert not run.outcomes


@on_loop
async def test_a_change_is_made_though_its_client_hangs_up(gateway, world):
    """What was asked for is done; only the answer is lost."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        world.logging = Deferred()
        call = asyncio.ensure_future(stock.log("uuid-1-0", "kept"))
        world.changed.clear()
        await world.changed.wait()
        call.cancel()
        await asyncio.wait([call])
        world.logging.callback(None)
        await world.until(lambda: run.lines)
        assert run.texts() == ["kept"]


# --- logs ------------------------------------------------------------------------------------------------------------------


@on_loop
async def test_log_lines_arrive_as_they_were(gateway, world):
    """Text, stream, number and time of each line; bytes that are not text are replaced."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true", "true")
        await stock.next()
        await stock.init("1")
        entries = [
            pb.LogEntry(step_uuid="uuid-1-0", line=0, time=3, type=0, data=b"out\n"),
            pb.LogEntry(step_uuid="uuid-1-1", line=0, time=4, type=1, data="ärr".encode()),
            pb.LogEntry(step_uuid="uuid-1-0", line=1, time=5, type=3, data=b"\xff\xfe"),
        ]
        await stock.call("Log", pb.LogRequest(logEntries=entries))
        assert [(line.step_uuid, line.line, line.time, line.stream, line.text) for line in run.lines] == [
            ("uuid-1-0", 0, 3.0, "stdout", "out"),
            ("uuid-1-1", 0, 4.0, "stderr", "ärr"),
            ("uuid-1-0", 1, 5.0, "header", "\ufffd\ufffd"),
        ]


@on_loop
async def test_a_batch_sent_again_is_stored_once(gateway, world):
    """An agent that heard no answer sends its batch again."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.log("uuid-1-0", "a", "b")
        await stock.log("uuid-1-0", "a", "b", "c")
        assert run.texts() == ["a", "b", "c"]


@on_loop
async def test_a_batch_is_stored_as_far_as_it_is_ours(gateway, world):
    """Lines of unknown steps are refused, the others of the batch are kept."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        entries = [pb.LogEntry(step_uuid="nobody", data=b"x"), pb.LogEntry(step_uuid="uuid-1-0", data=b"y")]
        with refused(Code.NOT_FOUND, "nobody"):
            await stock.call("Log", pb.LogRequest(logEntries=entries))
        assert run.texts() == ["y"]


@on_loop
async def test_an_oversized_batch_is_refused_and_the_session_lives(gateway, world):
    """More than 4 MiB is RESOURCE_EXHAUSTED; 2 MiB, which a stock agent may send, is taken."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        with refused(Code.RESOURCE_EXHAUSTED):
            await stock.log("uuid-1-0", "x" * (5 * 1024 * 1024))
        await stock.log("uuid-1-0", "a" * (1024 * 1024), "b" * (1024 * 1024))
        assert [len(text) for text in run.texts()] == [1024 * 1024] * 2
        assert not world.sessions[1].closed


# --- what can go wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Next", "Init", "Update", "Log", "RegisterAgent", "ReportHealth", "Done", "Wait"])
@on_loop
async def test_a_malformed_message_gets_a_clean_status(gateway, world, name):
    """Bytes that are no message are INVALID_ARGUMENT, and the session lives."""
    async with agent(gateway) as stock:
        await stock.attach()
        call = stock.channel.unary_unary(f"/proto.Woodpecker/{name}")
        with refused(Code.INVALID_ARGUMENT, "are not a proto."):
            await call(b"\x0a\xff\xff\xff", metadata=stock.metadata)
        await stock.call("ReportHealth", pb.ReportHealthRequest(status="I am alive!"))


@on_loop
async def test_a_malformed_auth_gets_a_clean_status(gateway, world):
    """Auth too is parsed with care."""
    async with agent(gateway) as stock:
        with refused(Code.INVALID_ARGUMENT):
            await stock.channel.unary_unary("/proto.WoodpeckerAuth/Auth")(b"\xff")


@on_loop
async def test_an_unknown_call_is_unimplemented(gateway, world):
    """A call of a later protocol says so."""
    async with agent(gateway) as stock:
        with refused(Code.UNIMPLEMENTED):
            await stock.channel.unary_unary("/proto.Woodpecker/Fetch")(b"")


@on_loop
async def test_a_store_that_can_not_write_means_try_again(gateway, world):
    """A full disk is UNAVAILABLE, with the store's words."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        world.failure = StoreError("the disk is full; free some space")
        with refused(Code.UNAVAILABLE, "disk is full"):
            await stock.init("1")
        world.failure = None
        await stock.init("1")


@on_loop
async def test_an_unforeseen_error_is_internal_and_says_little(gateway, world, flush_logged_errors):
    """What nobody foresaw is logged, not told."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        world.failure = ZeroDivisionError("secret")
        with refused(Code.INTERNAL, "its log says why"):
            await stock.init("1")
    assert [str(failure.value) for failure in flush_logged_errors(ZeroDivisionError)] == ["secret"]


async def _answer(call):
    return await call
