"""The cloud as a process of its own, with real agents in its instances, and a real controller."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from latent.testing.cloud import CloudError, CloudProcess, RemoteCloud
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


def test_instances_are_processes(served: CloudProcess, site: MakeSite) -> None:
    """An agent that is killed, hangs or vanishes with its instance is noticed, by the cloud and by a real controller."""
    one = site("count=3, build_wait_timeout=0, check_instance_interval=0.2")
    one.configure((one.directory / "master.cfg").read_text() + "c['limits'] = {'session_timeout': 5}\n")
    one.latent("start")
    builds = {name: one.submit("sleep 1000", labels={"worker": name}) for name in ("w-1", "w-2", "w-3")}
    one.wait("the builds to run", lambda: {build["state"] for build in one.builds().values()} == {"running"})
    killed, vanished, frozen = (
        next(instance for instance in served.instances("running") if str(instance.attempt) == f"{name}#1") for name in builds
    )
    for agent in psutil.Process(served.process.pid).children():
        if killed.id in agent.environ()["LATENT_INSTANCE"]:
            agent.kill()
    served.vanish(vanished.id)
    served.freeze(frozen.id)
    for build in builds.values():
        one.wait("the end of the run", lambda build=build: one.build(build)["runs"][0]["status"] == "interrupted")
        one.call("POST", f"builds/{build}/cancel", reason="seen enough")
    assert any("its agent was ended by signal 9" in entry.text for entry in served.log() if entry.subject == "w-1#1")
    one.wait_for_all()
    one.latent("stop")
    served.check()
    assert served.ledger()["vanished"] == 1


def test_faults_over_tcp(served: CloudProcess, site: MakeSite) -> None:
    """Orders reach a cloud that is apart; a real controller comes through what they do."""
    served.twice("create")
    served.fail("describe", times=None)
    served.late("list", 0.5, times=None)
    one = site("build_wait_timeout=0")
    one.latent("start")
    for _ in range(2):
        one.submit("true")
    assert {build["result"] for build in one.wait_for_all().values()} == {"success"}
    served.heal()
    served.wait(lambda found: not found, what="the end of all instances")
    one.latent("stop")
    assert served.calls()["create"] == 2
    assert "twice" in served.transcript()
    served.check()
    with pytest.raises(ValueError, match="the call is 'crate'"):
        served.fail("crate")
    with pytest.raises(CloudError, match="there is no instance i-0"):
        served.vanish("i-0")
    with pytest.raises(CloudError, match="there is no order 'explode'; the cloud takes boot_fails"):
        served.order("explode")


def test_ends_with_its_instances(tmp_path: Path) -> None:
    """When the cloud ends, or whoever started it, nothing that ran in it is left; after that it answers nobody."""
    with CloudProcess(tmp_path) as cloud:
        process = psutil.Process(cloud.process.pid)
        agent = {"LATENT_SERVER": "127.0.0.1:1", "LATENT_TOKEN": "t", "LATENT_WORKER": "w", "LATENT_ATTEMPT": "1"}
        call(cloud, "create", token="t", tags={}, image="agent", environment=agent)
        (instance,) = cloud.wait(lambda found: [one for one in found if one.state == "running"])
        directory = tmp_path / "instances" / instance.id
        assert directory.is_dir()
        agents = process.children()
        assert agents
    _, alive = psutil.wait_procs([process, *agents], timeout=10)
    assert alive == []
    assert not directory.exists()
    with pytest.raises(CloudError, match="no cloud answers at"):
        cloud.instances()


def call(cloud: CloudProcess, name: str, **arguments: object) -> dict[str, object]:
    """A call as a plugin makes it."""
    host, _, port = cloud.address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection, connection.makefile("rw") as lines:
        lines.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
        lines.flush()
        answer: dict[str, object] = json.loads(lines.readline())
    return answer


def test_by_hand(tmp_path: Path) -> None:
    """Started by hand it prints its address, writes it to the file, and ends on SIGTERM."""
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "latent.testing.cloud", "--port-file", str(port_file), "--empty", "--seed", "7"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert port_file.read_text() == address + "\n"
    assert RemoteCloud(address).instances() == []
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()
