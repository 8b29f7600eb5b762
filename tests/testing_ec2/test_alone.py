"""The cloud as a process: nothing is left of it, however it or its owner ends; by itself it outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.requires import require

require(find_spec("moto") and find_spec("boto3"), "moto", "pip install 'latent[testing-ec2]'")

from latent.testing.ec2 import Cloud, CloudError, Hypervisor  # noqa: E402

MARK = "LATENT_TEST_ALONE"


def runs(pid: int) -> bool:
    """A zombie does not: it waits for its new parent to look at it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(word: str) -> list[psutil.Process]:
    """All processes that come from what was started with it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == word:
                found.append(process)
        except psutil.Error:
            continue
    return found


def alone(state_file: Path, word: str, *options: str) -> subprocess.Popen[str]:
    """Started as anybody would; where it is has been read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "latent.testing.ec2", "--state-file", str(state_file), *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: word},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    return process


def booted(cloud: Cloud) -> str:
    """The id of an instance that runs and will not end by itself."""
    client = cloud.client()
    script = "#!/bin/sh\ntrap '' TERM\nsetsid sleep 600 &\nsleep 600; sleep 600"
    launched = client.run_instances(ImageId=cloud.image, MinCount=1, MaxCount=1, UserData=script)
    client.close()
    cloud.wait(lambda found: found[0].running)
    instance: str = launched["Instances"][0]["InstanceId"]
    return instance


def ended(word: str) -> None:
    """Wait until nothing of it runs."""
    _, left = psutil.wait_procs(marked(word), timeout=20)
    assert left == []
    assert marked(word) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    """Its instances end with it, also when it is killed and can do nothing for that."""
    word = f"{number.name}-{tmp_path.name}"
    process = alone(tmp_path / "state", word)
    cloud = Cloud.at(tmp_path / "state")
    booted(cloud)
    assert len(marked(word)) >= 4
    process.send_signal(number)
    process.communicate()
    ended(word)
    with pytest.raises(CloudError, match="does not answer"):
        cloud.instances()


def test_it_is_stopped_by_who_finds_it(tmp_path: Path) -> None:
    """The state file is all that is needed, is nobody else's, and goes with it."""
    state = tmp_path / "state"
    process = alone(state, "stopped", "--region", "us-east-1", "--key-id", "AKIAEXAMPLE", "--secret", "of mine")
    assert state.stat().st_mode & 0o777 == 0o600
    cloud = Cloud.at(state)
    assert (cloud.region, cloud.key_id, cloud.secret) == ("us-east-1", "AKIAEXAMPLE", "of mine")
    booted(cloud)
    cloud.close()
    assert len(Cloud.at(state).instances("running")) == 1
    cloud.stop()
    process.communicate()
    assert process.returncode == 0
    assert not state.exists()
    ended("stopped")
    with pytest.raises(CloudError, match="there is no cloud"):
        Cloud.at(state)


def test_orders_by_hand(tmp_path: Path) -> None:
    """A shell script can make things go wrong as well."""
    state = tmp_path / "state"
    process = alone(state, "orders", "--no-hypervisor")
    order = [sys.executable, "-m", "latent.testing.ec2", "--state-file", str(state), "--order"]
    subprocess.run([*order, "throttle", '{"rate": 1, "burst": 0, "action": "*"}'], check=True, stdout=subprocess.DEVNULL)
    wrong = subprocess.run([*order, "dance", "{}"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr) == (1, "dance: there is no order 'dance'\n")
    Cloud.at(state).stop()
    process.communicate()


def test_its_owner_is_killed(tmp_path: Path) -> None:
    """A test run that ends by SIGKILL leaves neither the cloud nor instances nor files."""
    script = f"""
        import sys, time
        from latent.testing.ec2 import Cloud, Hypervisor
        from tests.testing_ec2.test_alone import booted
        cloud = Cloud(hypervisor=Hypervisor({{"HERE": {str(tmp_path)!r}}}))
        booted(cloud)
        print(cloud.pid, flush=True)
        time.sleep(600)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, MARK: "owner", "TMPDIR": str(tmp_path)},
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline().strip().isdigit()
    assert list(tmp_path.iterdir())
    owner.kill()
    owner.communicate()
    ended("owner")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of it, and it says so when it is asked for more."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Cloud(hypervisor=Hypervisor(environment={"WORD": "given"}), key_id="AKIAMINE", secret="mine") as cloud:
        assert (cloud.key_id, cloud.environment["AWS_SECRET_ACCESS_KEY"]) == ("AKIAMINE", "mine")
        client = cloud.client()
        client.run_instances(ImageId=cloud.image, MinCount=1, MaxCount=1, UserData="#!/bin/sh\necho $WORD; sleep 600")
        client.close()
        (instance,) = cloud.wait(lambda found: found[0].running)
        cloud.wait(lambda _: "given" in cloud.console(instance.id))
        pids = [cloud.pid, *cloud.processes()]
        assert len(pids) >= 2
    assert not any(runs(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []
    cloud.close()
    with pytest.raises(CloudError):
        cloud.instances()


def test_a_cloud_that_can_not_start() -> None:
    """Says so."""
    with pytest.raises(CloudError, match="did not start"):
        Cloud(region="eu-nowhere-9")


def test_without_moto_the_extra_is_named() -> None:
    """Whoever lacks it is told what to install."""
    script = """
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "moto" else find(name, *rest)
        try:
            import latent.testing.ec2
        except ImportError as error:
            print(error)
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert said.stdout == "latent.testing.ec2 needs moto, which is not installed: pip install 'latent[testing-ec2]'\n"
