"""A controller with a cloud in memory: what happens to instances, restarts, the leak check, and that a seed tells it all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latent.model import Result
from latent.testing.cloud import Cloud, CloudError, CloudLatentWorker
from latent.testing.cloud.harness import CloudHarness
from latent.testing.cloud.values import EXPIRES, PROTECT


def workers(*names: str, **keywords: Any) -> Callable[[Cloud], list[CloudLatentWorker]]:
    declared = {"build_wait_timeout": 0, **keywords}
    return lambda cloud: [CloudLatentWorker(name, cloud=cloud, **declared) for name in names or ("w",)]


def test_a_build(tmp_path: Path) -> None:
    """A build gets an instance, whose agent carries it out; the instance goes."""
    with CloudHarness(tmp_path) as site:
        build = site.submit()
        site.advance(5)
        assert site.result(build) is Result.SUCCESS
        assert site.cloud.instances() == []
        assert site.cloud.ledger() == {"created": 1, "destroyed": 1, "vanished": 0, "exited": 0, "left": 0, "foreign": 0}


def test_times(tmp_path: Path) -> None:
    """Latency, boot and ending take as long as the cloud was told."""
    with CloudHarness(tmp_path, latency=2, boot=10, ending=5) as site:
        site.submit()
        site.advance(1)
        assert site.cloud.instances() == []
        site.advance(1)
        assert [one.state for one in site.cloud.instances()] == ["pending"]
        site.advance(10)
        assert [one.state for one in site.cloud.instances()] == ["running"]
        site.advance(2)
        assert [one.state for one in site.cloud.instances()] == ["stopping"]
        site.advance(5)
        assert site.cloud.instances() == []
        assert [one.state for one in site.cloud.instances("gone")] == ["gone"]


@pytest.mark.parametrize("fate", ["vanish", "exit", "freeze"])
def test_instance_fails(tmp_path: Path, fate: str) -> None:
    """A build whose instance vanishes, exits or hangs is tried again on another, though the agent says nothing."""
    with CloudHarness(tmp_path) as site:
        site.agents.work = site.works_for(100)
        build = site.submit()
        site.advance(30)
        (instance,) = site.cloud.instances("running")
        getattr(site.cloud, fate)(instance.id)
        site.advance(300)
        assert site.result(build) is Result.SUCCESS
        assert [run.run.status.value for run in site.runs(build)] == ["interrupted", "completed"]
        assert site.cloud.ledger()["created"] == 2


@pytest.mark.parametrize(
    ("fate", "words"), [("vanish", "is gone"), ("exit", "exited: exited with code 1"), ("freeze", "does not respond")]
)
def test_health(tmp_path: Path, fate: str, words: str) -> None:
    """check_instance tells what has become of the instance."""
    with CloudHarness(tmp_path, workers(build_wait_timeout=-1, check_instance_interval=10_000)) as site:
        site.submit()
        site.advance(5)
        plugin = site.post("w").plugin
        assert site.answer(plugin.check_instance()) == (True, "")
        (instance,) = site.cloud.instances()
        getattr(site.cloud, fate)(instance.id)
        good, message = site.answer(plugin.check_instance())
        assert not good
        assert words in message
        if fate == "freeze":
            site.cloud.thaw(instance.id)
            assert site.answer(plugin.check_instance()) == (True, "")


def test_health_unknown(tmp_path: Path) -> None:
    """A cloud that does not tell how an instance is does not make it ill; `latent health` shows the cloud's trouble."""
    with CloudHarness(tmp_path, workers(build_wait_timeout=-1)) as site:
        build = site.submit()
        site.advance(5)
        site.cloud.fail("describe", "internal", "out to lunch", times=None)
        site.advance(20)
        assert site.result(build) is Result.SUCCESS
        assert len(site.cloud.instances("running")) == 1
        assert "out to lunch" in site.health("cloud in memory")[0].message
        site.cloud.heal()
        site.advance(5)
        assert site.health() == []


def test_thawed(tmp_path: Path) -> None:
    """An agent that hung for a moment goes on with its build."""
    with CloudHarness(tmp_path, workers(check_instance_interval=1000)) as site:
        site.agents.work = site.works_for(30)
        build = site.submit()
        site.advance(10)
        (instance,) = site.cloud.instances()
        site.cloud.freeze(instance.id)
        site.advance(5)
        site.cloud.thaw(instance.id)
        site.advance(40)
        assert site.result(build) is Result.SUCCESS
        assert site.cloud.ledger()["created"] == 1


def test_boot_fails(tmp_path: Path) -> None:
    """An instance that exits while it boots fails its start at the next check, with the reason."""
    with CloudHarness(tmp_path) as site:
        site.cloud.boot_fails()
        build = site.submit()
        site.advance(10)
        (run,) = site.runs(build)
        assert "the kernel panicked" in run.run.error_msg
        site.advance(100)
        assert site.result(build) is Result.SUCCESS


def test_unattended(tmp_path: Path) -> None:
    """In an instance of the image "empty" nothing attaches: it is stopped after missing_timeout."""
    with CloudHarness(tmp_path, workers(image="empty", missing_timeout=30)) as site:
        build = site.submit()
        site.advance(35)
        assert "30 s" in site.runs(build)[0].run.error_msg
        assert site.cloud.instances() == []
        site.cancel(build)
        site.settle()


@pytest.mark.parametrize("at", [0.02, 0.5, 1.2, 10.0, 31.2, 31.4])
def test_restarts(tmp_path: Path, at: float) -> None:
    """A controller that dies at any point of a build's life: the next one ends the build, on the same instance if it can."""
    with CloudHarness(tmp_path) as site:
        site.agents.work = site.works_for(30)
        build = site.submit()
        site.advance(at)
        site.restart()
        site.advance(700)
        site.settle()
        assert site.result(build) is Result.SUCCESS
        assert [run.run.status.value for run in site.runs(build)][-1] == "completed"
        assert site.cloud.complaints() == []
        if 1.2 <= at <= 10:
            assert site.cloud.ledger()["created"] == 1


def test_controller_away(tmp_path: Path) -> None:
    """While there is no controller the agents work on, and tell the next one."""
    with CloudHarness(tmp_path) as site:
        site.agents.work = site.works_for(20)
        build = site.submit()
        site.advance(5)
        site.crash()
        site.advance(60)
        assert len(site.cloud.instances("running")) == 1
        site.restart()
        site.advance(1)
        assert site.result(build) is Result.SUCCESS
        assert len(site.runs(build)) == 1
        site.settle()


def test_leak_is_found(tmp_path: Path) -> None:
    """An instance that is left fails the check, with its history and the seed that does it again."""
    site = CloudHarness(tmp_path, workers(stop_timeout=5), seed=11)
    site.start()
    build = site.submit()
    site.cloud.fail("destroy", times=None)
    site.advance(5)
    assert site.result(build) is Result.SUCCESS
    with pytest.raises(AssertionError) as caught:
        site.stop()
    told = str(caught.value)
    assert "of w#1 (running) is left" in told
    assert "fail       w#1: destroy" in told
    assert "(seed 11: Cloud(seed=11) does the same again)" in told


def test_what_is_not_ours(tmp_path: Path) -> None:
    """What is foreign or protected is no leak; whoever touches it is told on."""
    with CloudHarness(tmp_path) as site:
        foreign = site.cloud.plant("w", 7, controller_id="f" * 32)
        anybodys = site.cloud.plant(tags={"name": "database"})
        kept = site.cloud.plant(
            "w", 9, controller_id=site.controller.identity.controller_id, foreign=False, tags={PROTECT: "yes"}
        )
        site.cloud.check()
        plugin = site.post("w").plugin
        site.answer(plugin.destroy_instance({"id": foreign.id}))
        site.answer(plugin.destroy_instance({"id": kept.id}))
        assert site.cloud.complaints() == [
            f"{foreign.id}, which is foreign, was destroyed",
            f"{kept.id}, which is protected, was destroyed",
        ]
        with pytest.raises(AssertionError, match="which is foreign, was destroyed"):
            site.cloud.check()
        assert anybodys in site.cloud.instances()
        site.cloud.touched.clear()


def test_doubled_is_told(tmp_path: Path) -> None:
    """Two instances of one attempt at once are told of, where the cloud would have heeded a token."""
    with CloudHarness(tmp_path) as site:
        plugin = site.post("w").plugin
        plugin.enrolment = site.controller.identity.enrolment(site.post("w").attempt)
        tags = {"latent:controller": "c", "latent:worker": "w", "latent:attempt": "1"}
        for token in ("one", "two"):
            site.answer(plugin._call("create", token=token, tags=tags, image="empty", environment={}))
        (complaint,) = site.cloud.complaints()
        assert "w#1 has several instances at once" in complaint
        for one in site.cloud.instances():
            site.answer(plugin.destroy_instance({"id": one.id}))
        site.cloud.doubled.clear()


def test_listed(tmp_path: Path) -> None:
    """The plugin's list tells whose an instance is, how old, whether protected, and until when it is wanted."""
    with CloudHarness(tmp_path) as site:
        now = site.clock.seconds()
        tags = {PROTECT: "", EXPIRES: f"{now + 60}"}
        foreign = site.cloud.plant("other", 3, controller_id="c" * 32, tags=tags, age=500)
        site.cloud.plant(tags={"name": "not of latent"})
        (one,) = site.answer(site.post("w").plugin.list_instances())
        assert (one.attempt.worker, one.attempt.number, one.controller_id) == ("other", 3, "c" * 32)
        assert (one.handle, one.created_at, one.protected, one.expires_at) == ({"id": foreign.id}, now - 500, True, now + 60)


def story(tmp_path: Path, seed: int) -> str:
    """A rough day, decided by its seed alone."""
    with CloudHarness(tmp_path, workers("a", "b", settle=20), seed=seed) as site:
        site.agents.work = site.works_for(20)
        site.cloud.lag(15, ragged=True)
        for call in ("create", "destroy", "list"):
            site.cloud.fail(call, times=None, chance=0.2)
            site.cloud.late(call, 8, times=None, chance=0.2)
        site.cloud.doom("vanish", 20, times=None, chance=0.3)
        site.cloud.doom("exit", 20, times=None, chance=0.3)
        for _ in range(6):
            site.submit()
        site.advance(600)
        site.restart()
        site.advance(600)
        site.settle()
        return site.cloud.transcript()


def test_replay(tmp_path: Path) -> None:
    """The same seed writes the same transcript, word for word; another seed another."""
    first, again, other = (story(tmp_path / name, seed) for name, seed in (("1", 5), ("2", 5), ("3", 6)))
    assert first == again
    assert first != other
    assert "vanish" in first + other


def test_no_such_instance(tmp_path: Path) -> None:
    """An order for an instance that never was says so."""
    with CloudHarness(tmp_path) as site, pytest.raises(CloudError, match="there is no instance i-0"):
        site.cloud.vanish("i-0")


def test_expiry(tmp_path: Path) -> None:
    """The tag that says until when an instance is wanted is pushed forward while the controller lives, also by the next one."""
    with CloudHarness(tmp_path, workers(expiry=90, build_wait_timeout=-1)) as site:
        site.submit()
        site.advance(5)

        def left() -> float:
            (instance,) = site.cloud.instances()
            assert instance.expires_at is not None
            return instance.expires_at - site.clock.seconds()

        for _ in range(20):
            site.advance(17)
            assert 59 <= left() <= 90
        site.cloud.fail("tag", times=2)
        for _ in range(20):
            site.advance(17)
            assert left() > 0
        site.restart()
        for _ in range(20):
            site.advance(17)
            assert 59 <= left() <= 90
        site.crash()
        site.advance(100)
        assert left() < 0
        site.restart()
        site.advance(5)


def test_reclaimed(tmp_path: Path) -> None:
    """A cloud that reclaims destroys an instance whose agent has ended, without being asked."""
    with CloudHarness(tmp_path, workers(build_wait_timeout=-1, check_instance_interval=1000)) as site:
        site.cloud.reclaims = True
        site.submit()
        site.advance(5)
        (instance,) = site.cloud.instances()
        site.cloud.exit(instance.id)
        site.advance(1)
        assert site.cloud.instances() == []


def test_two_controllers(tmp_path: Path) -> None:
    """Two controllers share a cloud: neither touches what is the other's, and the check comes when both have stopped."""
    with CloudHarness(tmp_path / "one", seed=2) as one:
        with CloudHarness(tmp_path / "two", beside=one) as two:
            builds = [(site, site.submit()) for site in (one, two) for _ in range(3)]
            for _ in range(10):
                two.advance(3)
            assert [site.result(build) for site, build in builds] == [Result.SUCCESS] * 6
            assert two.clock.seconds() == one.clock.seconds()
        build = one.submit()
        one.advance(5)
        assert one.result(build) is Result.SUCCESS
    assert one.cloud.ledger()["destroyed"] == 7
