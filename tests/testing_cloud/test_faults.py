"""What the cloud can let go wrong with calls: each fault strikes as it says, and a controller comes through it without a leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latent.model import Result
from latent.testing.cloud import Cloud, CloudLatentWorker
from latent.testing.cloud.harness import CloudHarness


def settled(site: CloudHarness, build: int) -> None:
    """Whatever went wrong, the build was carried out in the end."""
    site.settle()
    assert site.result(build) is Result.SUCCESS


def workers(**keywords: Any) -> Any:
    def make(cloud: Cloud) -> list[CloudLatentWorker]:
        return [CloudLatentWorker("w", cloud=cloud, build_wait_timeout=0, **keywords)]

    return make


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("internal", "LatentWorkerFailedToSubstantiate"),
        ("capacity", "LatentWorkerCapacityError"),
        ("quota", "LatentWorkerQuotaError"),
        ("throttled", "LatentWorkerThrottled"),
        ("image", "LatentWorkerConfigurationError"),
    ],
)
def test_refused(tmp_path: Path, error: str, kind: str) -> None:
    """A create that is refused fails the start with the error that says what happens next; the build is tried again."""
    with CloudHarness(tmp_path) as site:
        site.cloud.fail("create", error, "not today")
        build = site.submit()
        site.advance(5)
        failures = [entry.detail for entry in site.answer(site.controller.history("w")) if entry.event == "StartFailed"]
        assert [failure["kind"] for failure in failures] == [kind]
        assert "not today" in failures[0]["failure"]
        settled(site, build)
        assert site.cloud.calls()["create"] == 2


def test_refused_but_done(tmp_path: Path) -> None:
    """A create that is refused although the instance was made: the stop finds it by its tags."""
    with CloudHarness(tmp_path) as site:
        site.cloud.fail("create", done=True)
        build = site.submit()
        site.advance(5)
        assert site.cloud.instances() == []
        settled(site, build)
        assert site.cloud.ledger()["created"] == 2


@pytest.mark.parametrize("done", [False, True])
def test_hangs(tmp_path: Path, done: bool) -> None:
    """A create that never answers is given up after start_timeout; what it makes later is destroyed when it answers.

    Where it was carried out, the agent comes although nobody answered, and has the build.
    """
    with CloudHarness(tmp_path, workers(start_timeout=20)) as site:
        site.cloud.hang("create", done=done)
        build = site.submit()
        site.advance(60)
        assert site.cloud.instances() == []
        assert site.cloud.ledger()["created"] == 1
        assert site.result(build) is Result.SUCCESS
        site.cloud.heal()
        site.advance(5)
        assert site.cloud.ledger()["created"] == 2 - done
        assert site.cloud.instances() == []


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("seconds", [10, 40])
def test_answers_late(tmp_path: Path, seconds: float, done: bool) -> None:
    """A create that answers late is waited for up to start_timeout; an answer after that makes nothing that stays."""
    with CloudHarness(tmp_path, workers(start_timeout=20)) as site:
        site.cloud.late("create", seconds, done=done)
        build = site.submit()
        site.advance(200)
        assert site.result(build) is Result.SUCCESS
        assert site.cloud.instances() == []
        assert site.cloud.ledger()["created"] == (1 if seconds < 20 or done else 2)


def test_hangs_and_boots_slowly(tmp_path: Path) -> None:
    """An instance that a hung create made, and whose agent has not come yet, is found by its tags and stopped with its start."""
    with CloudHarness(tmp_path, workers(start_timeout=20), boot=30.0) as site:
        site.cloud.hang("create", done=True)
        build = site.submit()
        site.advance(29)
        assert site.cloud.instances() == []
        settled(site, build)
        assert site.cloud.ledger()["created"] == 2


def test_answers_twice(tmp_path: Path) -> None:
    """A create that is carried out and answered twice makes one instance: the cloud heeds the idempotency token."""
    with CloudHarness(tmp_path) as site:
        site.cloud.twice("create")
        build = site.submit()
        site.advance(5)
        assert site.result(build) is Result.SUCCESS
        assert site.cloud.ledger()["created"] == 1


def test_ignores_tokens(tmp_path: Path) -> None:
    """Where the cloud heeds no tokens there are two instances; the stop finds both."""
    with CloudHarness(tmp_path) as site:
        site.cloud.ignore_tokens()
        site.cloud.twice("create")
        build = site.submit()
        site.advance(5)
        assert site.result(build) is Result.SUCCESS
        assert site.cloud.ledger()["created"] == 2
        assert site.cloud.instances() == []


@pytest.mark.parametrize("call", ["list", "destroy"])
@pytest.mark.parametrize("fault", ["fail", "hang", "late", "twice", "ignore"])
def test_stop_goes_wrong(tmp_path: Path, call: str, fault: str) -> None:
    """Whatever befalls the calls of a stop, the instance is gone in the end."""
    with CloudHarness(tmp_path, workers(stop_timeout=30)) as site:
        more = {"late": {"seconds": 45}}.get(fault, {})
        getattr(site.cloud, fault)(call, times=2, skip=1 if call == "list" else 0, **more)
        build = site.submit()
        site.advance(100)
        assert site.result(build) is Result.SUCCESS
        again = site.submit()
        site.advance(1000)
        assert site.result(again) is Result.SUCCESS
        assert site.cloud.instances() == [], site.cloud.transcript()


@pytest.mark.parametrize("ragged", [False, True])
def test_lag(tmp_path: Path, ragged: bool) -> None:
    """Lists that lag: a worker whose `settle` covers that finds what an unanswered create has made."""
    with CloudHarness(tmp_path, workers(settle=30, start_timeout=5), seed=3) as site:
        site.cloud.lag(30, ragged=ragged)
        site.cloud.fail("create", done=True)
        build = site.submit()
        site.advance(120)
        assert site.result(build) is Result.SUCCESS
        assert site.cloud.ledger()["created"] == 2
        assert site.cloud.instances() == []


def test_lag_of_descriptions(tmp_path: Path) -> None:
    """An instance that the cloud does not know yet is not taken for one that is gone."""
    with CloudHarness(tmp_path, workers(settle=30), boot=20.0) as site:
        site.cloud.lag(8, calls=["list", "describe"])
        build = site.submit()
        site.advance(100)
        assert site.result(build) is Result.SUCCESS
        assert site.cloud.ledger()["created"] == 1


def test_lists_tell_what_was(tmp_path: Path) -> None:
    """With lag, a list shows an instance late, and after its end."""
    with CloudHarness(tmp_path, workers()) as site:
        site.cloud.lag(10)
        first = site.cloud.plant(controller_id="c")
        worker = site.post("w").plugin
        assert site.answer(worker.list_instances()) == []
        site.advance(11)
        assert [one.handle for one in site.answer(worker.list_instances())] == [{"id": first.id}]
        site.cloud.vanish(first.id)
        assert [one.handle for one in site.answer(worker.list_instances())] == [{"id": first.id}]
        site.advance(11)
        assert site.answer(worker.list_instances()) == []


def test_throttle(tmp_path: Path) -> None:
    """Calls above the rate are refused, and counted; what they failed to do is done later."""
    with CloudHarness(tmp_path) as site:
        site.cloud.throttle(1, 20)
        builds = [site.submit() for _ in range(3)]
        site.advance(4000)
        assert [site.result(build) for build in builds] == [Result.SUCCESS] * 3
        assert any("more than 1 calls" in entry.text for entry in site.cloud.log())
        site.settle()


@pytest.mark.parametrize("kind", ["capacity", "quota"])
def test_no_room(tmp_path: Path, kind: str) -> None:
    """Without room a worker waits, and has its turn when there is room again."""
    pool = lambda cloud: [CloudLatentWorker("w-{n}", count=3, cloud=cloud, build_wait_timeout=0)]  # noqa: E731
    with CloudHarness(tmp_path, pool) as site:
        site.agents.work = site.works_for(30)
        getattr(site.cloud, kind)(1)
        builds = [site.submit() for _ in range(3)]
        most = 0
        for _ in range(300):
            site.advance(2)
            most = max(most, len(site.cloud.instances()))
        assert most == 1
        assert [site.result(build) for build in builds] == [Result.SUCCESS] * 3


def test_which_calls(tmp_path: Path) -> None:
    """A fault lets as many calls pass as it says, strikes as often as it says, and only its worker's."""
    pool = lambda cloud: [CloudLatentWorker(name, cloud=cloud, build_wait_timeout=0) for name in ("a", "b")]  # noqa: E731
    with CloudHarness(tmp_path, pool) as site:
        site.cloud.fail("create", skip=1, times=2, worker="a")
        for name in ("a", "b"):
            for _ in range(4):
                build = site.submit(workers=[name])
                site.advance(200)
                assert site.result(build) is Result.SUCCESS
        starts = [entry.subject for entry in site.cloud.log() if entry.what == "create"]
        assert starts == ["a#1", "a#4", "a#5", "a#6", "b#1", "b#2", "b#3", "b#4"]


def test_chance(tmp_path: Path) -> None:
    """A fault with a chance strikes the same calls whenever the seed is the same, and others with another."""

    def struck(seed: int) -> list[str]:
        with CloudHarness(tmp_path / f"{seed}-{len(list(tmp_path.iterdir()))}", seed=seed) as site:
            site.cloud.fail("create", times=None, chance=0.5)
            for _ in range(8):
                site.submit()
            site.advance(4000)
            return [entry.subject for entry in site.cloud.log() if entry.what == "fail"]

    (tmp_path / "x").mkdir()
    first, again, other = struck(1), struck(1), struck(2)
    assert first == again
    assert first
    assert first != other


def test_what_there_is_not(tmp_path: Path) -> None:
    """A fault of a call, kind or error that the cloud does not have says which there are."""
    with CloudHarness(tmp_path) as site:
        with pytest.raises(ValueError, match=r"the call is 'crate'; the cloud knows .*create"):
            site.cloud.fail("crate")
        with pytest.raises(ValueError, match="the error is 'oops'; the cloud knows internal, capacity"):
            site.cloud.fail("create", "oops")
        with pytest.raises(ValueError, match="only list and describe can lag"):
            site.cloud.lag(3, calls=["create"])
        with pytest.raises(ValueError, match="a number from 0 to 1"):
            site.cloud.fail("create", chance=2)
