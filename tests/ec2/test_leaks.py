"""Instances that nobody expects, at the test cloud: another controller's, protected ones, and those without any controller."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from latent_ec2.instances import ATTEMPT, CONTROLLER, EXPIRES, PROTECT, WORKER
from tests.e2e.test_leaks import id_of, leaks
from tests.ec2.site import MakeSite
from tests.ec2.test_site import foreign

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud

DEAD, ALIVE = "dead" * 8, "live" * 8


def test_another_controllers(site: MakeSite, cloud: Cloud) -> None:
    """One that has expired is terminated by whoever looks; one that is protected, or has time left, or is nobody's, is not."""
    now = time.time()
    gone, kept, later = (
        foreign(cloud, **{CONTROLLER: whose, WORKER: "w", ATTEMPT: number, EXPIRES: f"{until:.0f}", **more})
        for whose, number, until, more in (
            (DEAD, "1", now - 700, {}),
            (DEAD, "2", now - 700, {PROTECT: "please"}),
            (ALIVE, "3", now + 3600, {}),
        )
    )
    others = foreign(cloud)
    one = site(more="c['reaper'] = {'interval': 1, 'min_age': 0.5}\n")
    one.latent("start")
    up = {kept, later, others}
    one.wait("the end of it", lambda: {seen.id for seen in cloud.instances() if seen.is_up} == up)
    assert leaks(one, ours=DEAD) == {"w#2": "protected"}
    assert leaks(one, ours=ALIVE) == {"w#3": "foreign"}
    assert gone in one.log()
    one.latent("stop")


def test_gone_for_good(site: MakeSite, cloud: Cloud) -> None:
    """The controller is killed and never comes back: its agent ends, and the instance terminates itself."""
    one = site(agent_command="latent-agent --orphan-timeout 2", build_wait_timeout=600)
    one.latent("start")
    one.submit("true")
    one.wait_for_all()
    ours = id_of(one)
    (up,) = one.up()
    assert float(up.tags[EXPIRES]) > time.time() + 3600
    one.kill_controller()
    one.wait("the end of it", lambda: one.up() == [])
    (ended,) = cloud.instances()
    assert ended.state == "terminated"
    assert "no controller answers any more: this instance shuts itself down" in cloud.console(ended.id)
    assert leaks(one, ours=ours) == {}
