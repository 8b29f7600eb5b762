"""Instances that nobody expects: found by scans, destroyed when two of them saw it, and by nobody before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from latent.config.settings import ReaperSettings
from latent.controller.scan import Scan
from latent.core.leaks import Standing
from latent.errors import ConfigError
from latent.model import Attempt
from latent.testing import ControllerHarness, Controls
from latent.worker import ListedInstance
from tests.controller.kit import controller, insubstantiate, made_controls, obliging

OTHERS = "0ther0ther0ther0"


def plant(harness: ControllerHarness, controls: Controls, worker: str = "w", number: int = 99, **seen: Any) -> ListedInstance:
    """An instance at the provider that no worker has."""
    given = {"controller_id": harness.controller.identity.controller_id, **seen}
    controls.strangers.append(ListedInstance(Attempt(worker, number), {"attempt": number}, **given))
    return controls.strangers[-1]


def removable(controls: Controls) -> None:
    """Destroying a planted instance removes it from the provider's list."""

    def destroy() -> None:
        controls.strangers = [one for one in controls.strangers if one.attempt.number != controls.destroyed[-1]]

    controls.instead["destroy_instance"] = destroy


def reap(harness: ControllerHarness, **wanted: Any) -> Scan:
    return harness.answer(harness.controller.leaks.reap(**wanted))


def standings(scan: Scan) -> dict[str, str]:
    return {str(found.instance.attempt): "gone" if found.gone else found.verdict.standing.value for found in scan.found}


def metric(harness: ControllerHarness, name: str) -> float:
    line = next(line for line in harness.controller.gauges.text().splitlines() if line.startswith(f"{name} "))
    return float(line.split()[-1])


def test_two_scans_before_it_acts(tmp_path: Path) -> None:
    """The first scan after it leaked shows it; the second comes as soon as it makes it certain, and it is destroyed."""
    with controller(tmp_path, w := obliging()) as harness:
        removable(w.controls)
        plant(harness, w.controls)
        harness.advance(300)
        assert metric(harness, 'latent_instances{standing="suspect"}') == 1
        assert not w.controls.destroyed
        assert not harness.health()
        harness.advance(59)
        assert not w.controls.destroyed
        harness.advance(1)
        assert w.controls.destroyed == [99]
        harness.advance(300)
        assert w.controls.destroyed == [99]
        assert metric(harness, 'latent_instances{standing="suspect"}') == 0
        assert not harness.health()


def test_what_is_not_there_the_second_time_is_left_alone(tmp_path: Path) -> None:
    """A list that lags behind, or is wrong, destroys nothing; nor does what is there again much later."""
    with controller(tmp_path, w := obliging()) as harness:
        seen = plant(harness, w.controls)
        for _ in range(3):
            w.controls.strangers = [seen]
            assert standings(harness.answer(harness.controller.leaks.scan())) == {"w#99": "suspect"}
            w.controls.strangers = []
            harness.advance(600)
        assert not w.controls.destroyed


def test_an_instance_that_is_started_while_the_provider_lists_is_no_leak(tmp_path: Path) -> None:
    """The list is asked for before the state is read. What has stopped meanwhile is looked at again first."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        for _ in range(3):
            listing: Deferred[Any] = Deferred()
            w.controls.instead["list_instances"] = lambda listing=listing: listing
            scanning = Deferred.fromCoroutine(harness.controller.leaks.scan())
            harness.submit()
            number = harness.attempt("w")
            mine = ListedInstance(Attempt("w", number), {"attempt": number}, harness.controller.identity.controller_id)
            listing.callback([mine])
            assert standings(harness.answer(scanning)) == {f"w#{number}": "expected"}
            harness.agent("w").attach().work()
            del w.controls.instead["list_instances"]
        assert not w.controls.destroyed


def test_a_place_that_can_not_be_listed_is_in_the_health(tmp_path: Path) -> None:
    """Nothing is concluded from it; what had leaked before still has when it answers again."""
    with controller(tmp_path, w := obliging(), obliging("other")) as harness:
        removable(w.controls)
        plant(harness, w.controls)
        harness.advance(300)

        def fails() -> None:
            raise RuntimeError("the API is away")

        w.controls.instead["list_instances"] = fails
        harness.advance(300)
        (item,) = harness.health()
        assert item.subject == "ControllableLatentWorker w"
        assert "RuntimeError: the API is away" in item.message
        assert metric(harness, "latent_scan_failures") == 1
        w.controls.instead["list_instances"] = Deferred
        harness.advance(361)
        assert "did not answer in 60 s" in harness.health()[0].message
        del w.controls.instead["list_instances"]
        harness.advance(300)
        assert w.controls.destroyed == [99]


def test_a_protected_instance_is_not_touched(tmp_path: Path) -> None:
    """Neither one that leaked nor one whose stop failed; it goes when the mark is taken off."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        removable(w.controls)
        plant(harness, w.controls, protected=True)
        harness.advance(1000)
        assert not w.controls.destroyed
        assert [item.message for item in harness.controller.health() if item.subject == "instance w#99"] == [
            "nobody expects it, and it is protected"
        ]
        assert standings(reap(harness)) == {"w#99": "protected"}
        w.controls.strangers = []
        plant(harness, w.controls)
        harness.advance(400)
        assert w.controls.destroyed == [99]

        fails = RuntimeError("the API is away")
        w.controls.auto_stop = fails

        def destroy() -> None:
            raise fails

        w.controls.instead["destroy_instance"] = destroy
        harness.submit()
        harness.agent("w").attach().work()
        tries = len(w.controls.destroyed)
        w.controls.instances.clear()
        plant(harness, w.controls, number=1, protected=True)
        harness.advance(1000)
        held = len(w.controls.destroyed)
        assert held - tries < 7, "it was tried until a scan saw that it is protected"
        assert "it is protected" in harness.health("attempt w#1")[0].remedy
        harness.advance(5000)
        assert len(w.controls.destroyed) == held
        w.controls.strangers = []
        plant(harness, w.controls, number=1)
        removable(w.controls)
        harness.advance(301)
        assert len(w.controls.destroyed) == held + 1
        assert not harness.health()
        w.controls.auto_stop = True


def test_another_controllers_instance_goes_when_it_has_expired(tmp_path: Path) -> None:
    """Seen expired by two scans, ten minutes after its time; tried again with back-off until it is gone. Others never go."""
    with controller(tmp_path, w := obliging()) as harness:
        at = harness.clock.seconds()
        plant(harness, w.controls, number=1, controller_id=OTHERS)
        plant(harness, w.controls, number=2, controller_id=OTHERS, expires_at=at + 1000)
        harness.advance(1590)
        assert not w.controls.destroyed

        def fails() -> None:
            raise RuntimeError("denied")

        w.controls.instead["destroy_instance"] = fails
        harness.advance(275)
        assert w.controls.destroyed == [2]
        harness.advance(30)
        assert w.controls.destroyed == [2, 2, 2]
        assert "denied" in harness.health("attempt w#2")[0].message
        removable(w.controls)
        harness.advance(40)
        assert standings(harness.answer(harness.controller.leaks.scan())) == {"w#1": "foreign"}
        assert not harness.health()


def test_an_agents_signs_of_life_are_what_pushes_an_expiry_forward(tmp_path: Path) -> None:
    """It is wanted while the agent is to attach, and while it is heard; not when it is silent, or its instance is to go."""
    with controller(tmp_path, obliging(build_wait_timeout=-1, missing_timeout=100)) as harness:
        plugin = harness.post("w").plugin
        assert not plugin.is_wanted()
        harness.submit()
        assert plugin.is_wanted()
        agent = harness.agent("w").attach()
        agent.work()
        assert plugin.is_wanted()
        for _ in range(20):
            harness.advance(50)
            agent.ask().cancel()
            assert plugin.is_wanted()
        harness.advance(61)
        assert harness.worker_state("w") == "SUBSTANTIATED"
        assert not plugin.is_wanted()
        insubstantiate(harness)
        assert not plugin.is_wanted()
    assert obliging().is_wanted(), "whoever calls its hooks outside a controller wants it"


def test_an_expiry_that_is_pushed_forward(tmp_path: Path) -> None:
    """Between the two scans its controller was heard of again: it is left alone."""
    with controller(tmp_path, w := obliging()) as harness:
        at = harness.clock.seconds()
        plant(harness, w.controls, controller_id=OTHERS, expires_at=at - 700)
        harness.advance(300)
        assert metric(harness, 'latent_instances{standing="suspect"}') == 1
        w.controls.strangers = []
        plant(harness, w.controls, controller_id=OTHERS, expires_at=at + 7200)
        harness.advance(600)
        assert not w.controls.destroyed
        assert metric(harness, 'latent_instances{standing="foreign"}') == 1


def test_reap_when_asked(tmp_path: Path) -> None:
    """What is certain goes at once and is reported gone; what is not says when it is. A dry run does nothing."""
    with controller(tmp_path, w := obliging(), reaper=ReaperSettings(interval=None)) as harness:
        removable(w.controls)
        plant(harness, w.controls)
        scan = reap(harness, wait=60)
        assert standings(scan) == {"w#99": "suspect"}
        assert scan.found[0].verdict.certain_at == harness.clock.seconds() + 60
        harness.advance(60)
        assert standings(reap(harness, dry_run=True)) == {"w#99": "leaked"}
        assert not w.controls.destroyed
        assert standings(reap(harness, wait=60)) == {"w#99": "gone"}
        assert not harness.health()
        assert standings(reap(harness, wait=60)) == {}


def test_reap_tries_at_once_what_waits_for_its_next_try(tmp_path: Path) -> None:
    """A stop that failed is not waited for when somebody asks; what went wrong this time is in the answer."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:

        def fails() -> None:
            raise RuntimeError("denied")

        w.controls.instead["destroy_instance"] = fails
        w.controls.auto_stop = RuntimeError("no")
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(700)
        (found,) = reap(harness, wait=60).found
        assert (found.gone, found.verdict.standing) == (False, Standing.CONDEMNED)
        assert found.verdict.why == "it could not be destroyed: RuntimeError: denied"
        w.controls.instead["destroy_instance"] = Deferred
        reaping = Deferred.fromCoroutine(harness.controller.leaks.reap(wait=20))
        harness.advance(20)
        assert standings(harness.answer(reaping)) == {"w#1": "condemned"}
        del w.controls.instead["destroy_instance"]
        w.controls.auto_stop = True
        harness.advance(1000)
        assert not w.controls.instances


def test_a_controller_that_is_gone_for_good(tmp_path: Path) -> None:
    """Its instances go when an operator names it, by the beginning of its id; periodic scans then know it, too."""
    with controller(tmp_path, w := obliging()) as harness:
        removable(w.controls)
        ours = harness.controller.identity.controller_id
        plant(harness, w.controls, number=1, controller_id=OTHERS)
        plant(harness, w.controls, number=2, controller_id="0th-another")
        for wrong, why in (
            ("x", "no instance of a controller 'x'"),
            ("0th", "several"),
            ("", "no instance"),
            (OTHERS + "0", "no "),
        ):
            with pytest.raises(ConfigError, match=why):
                reap(harness, controllers=[wrong])
        plant(harness, w.controls, number=3)
        with pytest.raises(ConfigError, match="is this controller"):
            reap(harness, controllers=[ours[:8]])
        w.controls.strangers.pop()
        assert standings(reap(harness, controllers=[OTHERS[:6]], dry_run=True)) == {"w#1": "suspect", "w#2": "foreign"}
        harness.advance(400)
        assert not w.controls.destroyed, "a dry run says nothing about it"
        assert standings(reap(harness, controllers=[OTHERS[:6]])) == {"w#1": "suspect", "w#2": "foreign"}
        harness.advance(61)
        assert w.controls.destroyed == [1]
        assert standings(harness.answer(harness.controller.leaks.scan())) == {"w#2": "foreign"}


def test_only_shown(tmp_path: Path) -> None:
    """With dry_run the health shows what has leaked and how to have it destroyed, and nothing is; until a reconfig says so."""
    settings = ReaperSettings(dry_run=True, interval=100, min_age=10)
    with controller(tmp_path, w := obliging(), reaper=settings) as harness:
        removable(w.controls)
        plant(harness, w.controls, title="i-0abc")
        harness.advance(200)
        assert not w.controls.destroyed
        (item,) = harness.health("instance w#99 (i-0abc)")
        assert (item.message, item.remedy) == ("it has leaked: no worker accounts for it", "latent leaks --reap destroys it")
        assert metric(harness, 'latent_instances{standing="leaked"}') == 1
        harness.controller.leaks.configure(ReaperSettings(interval=50, min_age=10))
        harness.advance(60)
        assert w.controls.destroyed == [99]


def test_a_clock_that_is_set(tmp_path: Path) -> None:
    """An hour forward makes no leak of what is expected or another's; an hour back puts the second scan off by nothing."""
    with controller(tmp_path, w := obliging()) as harness:
        removable(w.controls)
        at = harness.clock.seconds()
        plant(harness, w.controls, number=1, controller_id=OTHERS, expires_at=at + 3600)
        harness.submit()
        harness.advance(1)
        harness.clock.rightNow += 3600
        harness.advance(300)
        assert not w.controls.destroyed
        plant(harness, w.controls, number=9)
        assert standings(harness.answer(harness.controller.leaks.scan()))["w#9"] == "suspect"
        harness.clock.rightNow -= 3600
        harness.answer(harness.controller.leaks.scan())
        harness.advance(60)
        assert standings(reap(harness, wait=60))["w#9"] == "gone"
        harness.agent("w").attach().work()


@pytest.mark.parametrize(
    "wrong",
    [{"created_at": "today"}, {"expires_at": True}, {"protected": None}, {"title": 3}, {"controller_id": None}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_list_that_is_wrong(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Nothing is decided by it; the health names the plugin, the hook and the field."""
    with controller(tmp_path, w := obliging()) as harness:
        w.controls.strangers = [ListedInstance(**{"attempt": Attempt("w", 9), "handle": {}, "controller_id": "x", **wrong})]
        harness.advance(301)
        (item,) = harness.health()
        assert "ControllableLatentWorker.list_instances answered a ListedInstance" in item.message
        assert f"whose {next(iter(wrong))} is" in item.message
        w.controls.strangers = []


def test_a_controller_that_does_not_run(tmp_path: Path) -> None:
    """Who only takes stock sees what each worker has, begins nothing, and can have the rest destroyed."""
    harness = ControllerHarness(tmp_path, [w := obliging(build_wait_timeout=600)])
    harness.start()
    harness.submit()
    harness.agent("w").attach().work()
    removable(w.controls)
    plant(harness, w.controls)
    harness.crash()
    harness.open()
    harness.answer(harness.controller.take_stock())
    controls = made_controls(w)
    starts = len(controls.starts)
    assert standings(harness.answer(harness.controller.leaks.scan())) == {"w#1": "expected", "w#99": "suspect"}
    harness.advance(1000)
    assert not controls.destroyed
    assert standings(reap(harness, wait=60)) == {"w#1": "expected", "w#99": "gone"}
    ours = harness.controller.identity.controller_id
    assert standings(reap(harness, controllers=[ours])) == {"w#1": "suspect"}
    controls.instead.clear()
    harness.advance(60)
    assert standings(reap(harness, controllers=[ours], wait=60)) == {"w#1": "gone"}
    assert (len(controls.starts), len(controls.stops)) == (starts, 0)
    harness.controller.leaks.stop()
    harness.controller.reaper.stop()
    harness.close()
    harness.start()
    assert harness.worker_state("w") == "NOT_SUBSTANTIATED"
    assert not harness.health()
    harness.stop()
