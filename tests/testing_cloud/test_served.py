"""The cloud as a process of its own, with real agents in its instances, and a real controller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from latent.testing.cloud import CloudProcess
from tests.e2e.site import Site

MakeSite = Callable[..., Site]


def test_controller_is_killed(served: CloudProcess, site: MakeSite, tmp_path: Path) -> None:
    """A controller that is killed finds its instance in the cloud again; the build goes on there, and nothing is left."""
    one = site()
    one.latent("start")
    go = tmp_path / "go"
    build = one.submit(f"echo once >> {tmp_path}/ran; while [ ! -e {go} ]; do sleep 0.1; done")
    one.wait("the build to run", (tmp_path / "ran").exists)
    one.kill_controller()
    assert len(served.instances("running")) == 1
    go.touch()
    one.latent("start")
    assert one.wait_for_all()[build]["result"] == "success"
    assert (tmp_path / "ran").read_text() == "once\n"
    one.latent("stop")
    assert served.ledger() == {"created": 1, "destroyed": 1, "vanished": 0, "exited": 0, "left": 0, "foreign": 0}
    served.check()
