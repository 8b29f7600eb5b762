"""Who may open a session, who has it, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent.controller.identity import token_hash
from latent.errors import EnrolmentRefused, ProtocolError
from latent.model import BuildState, Result
from latent.store.sessions import open_sessions
from latent.testing import ControllerHarness, SteppedAgent, answer
from latent.worker.base import Worker
from tests.controller.kit import controller, insubstantiate, obliging


def building(harness: ControllerHarness, name: str = "w") -> SteppedAgent:
    """An agent in the middle of a build."""
    harness.submit(workers=[name])
    agent = harness.agent(name).attach()
    agent.take()
    agent.begin()
    return agent


def test_a_token_opens_one_session(tmp_path: Path) -> None:
    """Used again it is refused, with the attempt named."""
    with controller(tmp_path, obliging()) as harness:
        agent = building(harness)
        with pytest.raises(EnrolmentRefused, match="w#1 has been used already"):
            harness.agent("w").enrol()
        agent.finish()


@pytest.mark.parametrize("token", ["", "nonsense", "é" * 1000], ids=["empty", "unknown", "long"])
def test_a_token_that_nobody_made_is_refused(tmp_path: Path, token: str) -> None:
    """It opens nothing, and harms nobody."""
    with controller(tmp_path, obliging()) as harness:
        agent = building(harness)
        with pytest.raises(EnrolmentRefused, match="unknown"):
            harness.plain_agent(token).enrol()
        agent.finish()


def test_a_token_of_an_attempt_that_is_over_is_refused(tmp_path: Path) -> None:
    """An instance that comes up only after it was given up finds no controller."""
    with controller(tmp_path, obliging(build_wait_timeout=0)) as harness:
        harness.cancel(harness.submit())
        with pytest.raises(EnrolmentRefused, match="w#1, which is over"):
            harness.agent("w", 1).enrol()


def test_an_agent_comes_back_with_its_token_and_its_sessions_id(tmp_path: Path) -> None:
    """It is the same session, and its build goes on."""
    with controller(tmp_path, obliging()) as harness:
        agent = building(harness)
        before = agent.session_id
        agent.come_back()
        assert agent.session_id == before
        agent.finish()
        assert harness.result(1) is Result.SUCCESS


def test_an_agent_whose_session_was_closed_gets_another_while_its_attempt_is_up(tmp_path: Path) -> None:
    """Its build is with nobody any more, but it can have the next one."""
    with controller(tmp_path, w := obliging()) as harness:
        agent = building(harness)
        agent.finish()
        before = agent.session_id
        agent.leave()
        agent.come_back()
        assert agent.session_id != before
        harness.submit()
        agent.work()
        assert len(w.controls.starts) == 1


def test_a_sessions_id_is_worth_nothing_without_its_token(tmp_path: Path) -> None:
    """Another attempt's token does not open it, nor any token that is used."""
    with controller(tmp_path, obliging("a"), obliging("b")) as harness:
        building(harness, "a")
        other = building(harness, "b")
        stolen = harness.agent("a")
        for session_id in (other.session_id, 99):
            with pytest.raises(EnrolmentRefused):
                answer(harness.controller.sessions.enrol(stolen._agent._token, "test", session_id))


def test_a_session_that_is_closed_is_refused_everything(tmp_path: Path) -> None:
    """What a gateway still asks in its name tells it to enrol again."""
    with controller(tmp_path, obliging()) as harness:
        agent = building(harness)
        agent.finish()
        asking = agent.ask()
        failed: list[object] = []
        asking.addErrback(failed.append)
        session = harness.controller.sessions.get(agent.session_id)
        agent.leave("its connection was cut")
        with pytest.raises(EnrolmentRefused, match="enrol again"):
            harness.controller.sessions.get(agent.session_id)
        with pytest.raises(EnrolmentRefused, match="its connection was cut"):
            answer(harness.controller.sessions.attach(session, capacity=1, labels={}, info={}))
        assert answer(session.when_closed()) == "its connection was cut"
        assert not harness.disk(open_sessions)


def test_who_waits_for_a_sessions_end_is_told_why(tmp_path: Path) -> None:
    """`when_closed` fires with the reason, and can be cancelled."""
    with controller(tmp_path, obliging()) as harness:
        agent = building(harness)
        session = harness.controller.sessions.get(agent.session_id)
        waiting, given_up = session.when_closed(), session.when_closed()
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        insubstantiate(harness)
        assert answer(waiting) == "an operator wants it to go"


def test_a_session_that_is_silent_for_too_long_is_closed(tmp_path: Path) -> None:
    """After session_timeout, however many others come meanwhile."""
    with controller(tmp_path, *(obliging(f"w{n}") for n in range(20))) as harness:
        silent = building(harness, "w0")
        for n in range(1, 20):
            building(harness, f"w{n}")
            harness.advance(4)
        assert "silent for 60 s" in silent.closed


def test_any_sign_of_life_keeps_a_session_open(tmp_path: Path) -> None:
    """To ask for work is one, to renew a lease another."""
    with controller(tmp_path, obliging()) as harness:
        agent = building(harness)
        for _ in range(5):
            harness.advance(50)
            agent.renew()
        agent.finish()
        for _ in range(5):
            harness.advance(50)
            agent.ask().cancel()
        assert not agent.closed


def test_an_agent_whose_instance_is_said_to_be_gone_must_show_soon_that_it_lives(tmp_path: Path) -> None:
    """check_instance says no while it builds: silent for 15 s, it is taken for lost; heard of, it goes on."""
    with controller(tmp_path, dead := obliging("dead"), well := obliging("well")) as harness:
        agents = {name: building(harness, name) for name in ("dead", "well")}
        for one in (dead, well):
            one.controls.good = (False, "the provider knows nothing of it")
        for _ in range(10):
            harness.advance(3)
            agents["well"].renew()
        assert "the provider knows nothing of it" in agents["dead"].closed
        assert not agents["well"].closed
        agents["well"].finish()
        assert len(well.controls.stops) == 1, "no more builds for it after this"


def test_a_plain_workers_agent_enrols_with_its_password(tmp_path: Path) -> None:
    """As often as it likes; the newest is the worker's."""
    with controller(tmp_path, Worker("plain", "secret")) as harness:
        first = harness.plain_agent("secret").attach()
        second = harness.plain_agent("secret").attach()
        assert "another agent attached" in first.closed
        build = harness.submit()
        second.work()
        assert harness.result(build) is Result.SUCCESS
        assert harness.status("plain").state == "ATTACHED"
        second.leave()
        assert harness.status("plain").state == "DETACHED"
        assert "not attached" in harness.health("worker plain")[0].message


def test_a_plain_workers_lost_build_is_tried_again(tmp_path: Path) -> None:
    """Its agent fell silent: the build waits for the next."""
    with controller(tmp_path, Worker("plain", "secret")) as harness:
        build = harness.submit()
        assert "not attached" in harness.why(build)
        agent = harness.plain_agent("secret").attach()
        agent.take()
        agent.begin()
        harness.advance(62)
        assert harness.state(build) is BuildState.QUEUED
        harness.plain_agent("secret").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_what_an_agent_says_of_itself_counts_where_the_declaration_says_nothing(tmp_path: Path) -> None:
    """Its labels are offered to builds, but none of them overrides one that was declared, nor its worker's name."""
    with controller(tmp_path, obliging(labels={"os": "linux"})) as harness:
        build = harness.submit(labels={"cpu": "8"})
        assert "cpu=8 is not offered" in harness.why(build)
        harness.submit()
        agent = harness.agent("w").attach(labels={"cpu": "8", "os": "bsd", "worker": "other"})
        agent.work()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert "os=bsd is not offered" in harness.why(harness.submit(labels={"os": "bsd"}))
        assert "other" in harness.why(harness.submit(labels={"worker": "other"}))


# --- an agent that leaves, one that was not heard, one that came with the shared token ----------------------------------------


def leave(harness: ControllerHarness, agent: SteppedAgent) -> None:
    session = harness.controller.sessions.get(agent.session_id)
    harness.answer(harness.controller.sessions.leave(session, "its agent has unregistered"))


def test_an_agent_that_leaves_ends_its_build_and_gets_no_other(tmp_path: Path) -> None:
    """Its session is closed some seconds after the last build, also if the controller was restarted meanwhile."""
    with controller(tmp_path, Worker("plain", "secret")) as harness:
        first = harness.submit()
        agent = harness.plain_agent("secret").attach()
        agent.take()
        agent.begin()
        asking = agent.ask()
        leave(harness, agent)
        with pytest.raises(ProtocolError, match="unregistered"):
            answer(harness.controller.dispatcher.next_lease(harness.controller.sessions.get(agent.session_id)))
        assert asking.called
        second = harness.submit()
        assert "unregistered" in harness.why(second)
        harness.restart()
        agent.come_back()
        assert "unregistered" in harness.why(second)
        agent.finish()
        assert harness.result(first) is Result.SUCCESS
        agent.tell("a late line")
        harness.advance(10)
        assert "unregistered" in agent.closed
        assert harness.state(second) is BuildState.QUEUED
        harness.plain_agent("secret").attach().work()


def test_an_agent_that_leaves_gives_back_what_it_has_not_begun(tmp_path: Path) -> None:
    """At once: nobody waits for the lease to lapse. With nothing to do it is gone at once, too."""
    with controller(tmp_path, Worker("plain", "secret")) as harness:
        build = harness.submit()
        agent = harness.plain_agent("secret").attach()
        agent.take()
        leave(harness, agent)
        assert agent.closed
        assert harness.state(build) is BuildState.QUEUED
        harness.plain_agent("secret").attach().work()
        assert harness.build(build).attempts == 1


def test_an_agent_that_was_not_heard_for_a_while_has_its_session_again(tmp_path: Path) -> None:
    """Under the same number, without what it ran; by its token, or because its gateway knows it."""
    with controller(tmp_path, Worker("plain", "secret")) as harness:
        build = harness.submit()
        agent = harness.plain_agent("secret").attach()
        for comes_back in (harness.controller.sessions.resume, None):
            agent.take()
            agent.begin()
            lost = agent.session_id
            harness.advance(62)
            assert "silent" in agent.closed
            if comes_back is None:
                agent.come_back(attach=False)
            else:
                session = harness.answer(comes_back(lost))
                harness.controller.sessions.touch(session)
                agent.come_back(attach=False)
            assert agent.session_id == lost
            harness.advance(0)
            assert harness.status("plain").state == "ATTACHED"
        agent.work()
        assert harness.result(build) is Result.SUCCESS


def test_a_session_that_was_lost_is_not_given_back_when_somebody_else_has_its_place(tmp_path: Path) -> None:
    """Nor when it was closed for another reason, nor when the password is another now."""
    with controller(tmp_path, Worker("plain", "secret"), obliging()) as harness:
        sessions = harness.controller.sessions
        agent = harness.plain_agent("secret").attach()
        harness.advance(62)
        harness.plain_agent("secret").attach()
        for number in (agent.session_id, 99):
            with pytest.raises(EnrolmentRefused):
                harness.answer(sessions.resume(number))
        latent = building(harness)
        latent.finish()
        latent.leave()
        with pytest.raises(EnrolmentRefused):
            harness.answer(sessions.resume(latent.session_id))
        harness.advance(62)
        harness.reconfigure([Worker("plain", "another"), *(p for p in harness.config([obliging()]).workers.values())])
        for token, number in (("secret", agent.session_id), ("secret", agent.session_id + 1)):
            with pytest.raises(EnrolmentRefused):
                harness.answer(sessions.enrol(token, "test", number))


def test_with_the_shared_token_an_agent_says_which_plain_worker_it_is(tmp_path: Path) -> None:
    """Its session is nobody's until then; a latent worker's it can't be."""
    with controller(tmp_path, Worker("plain", "secret"), obliging("latent")) as harness:
        sessions = harness.controller.sessions
        sessions.shared = token_hash("shared")
        session = harness.answer(sessions.enrol("shared", "test"))
        for name in ("latent", "nobody", ""):
            with pytest.raises(EnrolmentRefused, match="no plain worker"):
                harness.answer(sessions.name(session, name or "?"))
        harness.answer(sessions.name(session, "plain"))
        harness.answer(sessions.name(session, "plain"))
        with pytest.raises(EnrolmentRefused, match="agent of worker plain"):
            harness.answer(sessions.name(session, "latent"))
        harness.answer(sessions.attach(session, capacity=1, labels={}, info={"agent": "x"}))
        assert harness.status("plain").session
        assert harness.answer(sessions.enrol("shared", "test", session.id)) is session
        harness.restart()
        sessions = harness.controller.sessions
        sessions.shared = token_hash("shared")
        assert harness.answer(sessions.enrol("shared", "test", session.id)).worker == "plain"
        harness.answer(sessions.close(sessions.get(session.id), "x"))
        again = harness.answer(sessions.enrol("shared", "test", session.id))
        assert (again.id != session.id, again.worker) == (True, "plain")
        sessions.shared = None
        with pytest.raises(EnrolmentRefused, match="unknown"):
            harness.answer(sessions.enrol("shared", "test", session.id + 9))


def test_a_number_that_is_not_the_tokens_counts_as_none(tmp_path: Path) -> None:
    """A stock agent keeps the number of its session in a file, which may have come with the image."""
    with controller(tmp_path, obliging("a"), obliging("b")) as harness:
        other = building(harness, "a")
        harness.submit(workers=["b"])
        token = harness.agent("b")._agent._token
        session = harness.answer(harness.controller.sessions.enrol(token, "test", other.session_id))
        assert (session.worker, session.id != other.session_id) == ("b", True)
