"""What was written for Buildbot: configurations with its Docker worker, and plugins on its AbstractLatentWorker."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from latent.config.loader import load
from latent.errors import ConfigError, LatentWorkerCannotSubstantiate, LatentWorkerFailedToSubstantiate
from latent.model import Result
from latent.testing import ControllerHarness
from latent.worker import Property, hooks
from tests.docker.kit import build, enrolment_of

BUILDBOT_IMPORT = "from buildbot.plugins import util, worker"
OUR_IMPORT = "from latent.plugins import util, worker"

# The part of a configuration that declares workers, as people write it for Buildbot.
WORKERS = """
import os

import docker.tls
from buildbot.plugins import util, worker

c = BuildmasterConfig = {}

DOCKER = "unix:///var/run/docker.sock"

c["workers"] = [
    worker.DockerLatentWorker("plain", None, docker_host="tcp://localhost:2375", image="my_project_worker"),
    worker.DockerLatentWorker("positional", "sekrit", DOCKER, "img:1", "/bin/agent --now", ["/srv/src:/src:ro"]),
    worker.DockerLatentWorker(
        "everything",
        None,
        docker_host=util.Interpolate("tcp://%(prop:site:-build)s.example:2376"),
        image=util.Property("image", default="buildbot/buildbot-worker:master"),
        command=["/usr/bin/dumb-init", "twistd", "--pidfile=", "-ny", "buildbot.tac"],
        volumes=["/cache:/cache", util.Interpolate("/srv/%(prop:branch:-main)s:/work")],
        dockerfile="FROM debian:12\\nRUN true",
        version="1.41",
        tls=docker.tls.TLSConfig(verify=False),
        followStartupLogs=True,
        masterFQDN="master.example:9989",
        master_protocol="msgpack_experimental_v7",
        hostconfig={"network_mode": "host", "mem_limit": "2g", "cap_add": ["SYS_PTRACE"]},
        autopull=True,
        alwaysPull=True,
        custom_context=False,
        encoding="gzip",
        target="worker",
        buildargs={"RELEASE": util.Property("release", default="12")},
        hostname="builder",
        build_wait_timeout=300,
        check_instance_interval=5,
        missing_timeout=600,
        notify_on_missing=["admin@example.org"],
        max_builds=2,
        properties={"os": "linux"},
        defaultProperties={"arch": "amd64"},
    ),
]
c["workers"] += [
    worker.DockerLatentWorker(f"many-{n}", os.urandom(8).hex(), docker_host=DOCKER, dockerfile="FROM scratch") for n in range(3)
]
"""


def test_configuration(tmp_path: Path) -> None:
    """The workers of a Buildbot configuration are declared by the same text, but for its import."""
    assert WORKERS.count(BUILDBOT_IMPORT) == 1
    path = tmp_path / "master.cfg"
    path.write_text(WORKERS.replace(BUILDBOT_IMPORT, OUR_IMPORT))
    config = load(path)
    assert list(config.workers) == ["plain", "positional", "everything", "many-0", "many-1", "many-2"]
    everything: Any = config.workers["everything"]
    assert (everything.build_wait_timeout, everything.max_builds) == (300, 2)
    assert {worker.build_wait_timeout for name, worker in config.workers.items() if name != "everything"} == {0}  # type: ignore[attr-defined]
    positional: Any = config.workers["positional"]
    args, kwargs = positional.arguments
    positional.reconfigService(*args, **kwargs)
    assert positional.options["image"] == "img:1"
    assert positional.options["volumes"] == ["/srv/src:/src:ro"]


def test_what_cannot_be_honoured(tmp_path: Path) -> None:
    """Options of Buildbot's that mean nothing here are named, all of them, each with its line and what to do."""
    path = tmp_path / "master.cfg"
    path.write_text(
        f"{OUR_IMPORT}\n"
        "c['workers'] = [\n"
        "    worker.DockerLatentWorker('a', None, 'tcp://h:1', image='i', locks=['x']),\n"
        "    worker.DockerLatentWorker('b', None, 'tcp://h:1', image='i', keepalive_interval=60),\n"
        "    worker.DockerLatentWorker('c', None, 'tcp://h:1', image='i', hostconfig={'binds': ['/a:/b']}),\n"
        "]\n"
        "c['schedulers'] = []\n"
    )
    with pytest.raises(ConfigError) as raised:
        load(path)
    told = raised.value.errors
    assert [line.split(":")[1] for line in told] == ["3", "4", "5", "7"]
    assert "locks is not supported" in told[0]
    assert "keepalive_interval is not supported" in told[1]
    assert "binds" in told[2]


# A plugin as a third party has it for Buildbot: its own options, rendered ones, inlineCallbacks, failed_to_start,
# getRandomPass, and instances that depend on the build. Only its imports are changed, by the table below.
PLUGIN = """
from twisted.internet import defer

from buildbot import config
from buildbot.interfaces import LatentWorkerFailedToSubstantiate
from buildbot.interfaces import LatentWorkerCannotSubstantiate
from buildbot.util.latent import CompatibleLatentWorkerMixin
from buildbot.worker import AbstractLatentWorker

CLOUD = {}


class VmLatentWorker(CompatibleLatentWorkerMixin, AbstractLatentWorker):
    instance = None

    def checkConfig(self, name, password, flavour, image=None, **kwargs):
        if image is None:
            config.error("VmLatentWorker: an image is needed")
        super().checkConfig(name, password, **kwargs)

    @defer.inlineCallbacks
    def reconfigService(self, name, password, flavour, image=None, **kwargs):
        self.flavour = flavour
        self.image = image
        yield super().reconfigService(name, password, build_wait_timeout=kwargs.pop("build_wait_timeout", 0), **kwargs)

    @defer.inlineCallbacks
    def renderWorkerProps(self, build):
        rendered = yield build.render((self.flavour, self.image))
        return rendered

    @defer.inlineCallbacks
    def start_instance(self, build):
        if self.instance is not None:
            raise ValueError("instance active")
        flavour, image = yield self.renderWorkerPropsOnStart(build)
        if flavour == "none":
            raise LatentWorkerCannotSubstantiate("there is no such flavour")
        if flavour == "full":
            raise LatentWorkerFailedToSubstantiate(self.workername, "no room")
        self.instance = (self.workername, flavour, image, self.getRandomPass())
        CLOUD[self.workername] = self.instance
        if flavour == "broken":
            self.failed_to_start("vm-1", "ERROR")
        return ["vm-1", image, "00:00:01"]

    def stop_instance(self, fast=False):
        if self.instance is None:
            return defer.succeed(None)
        self.instance = None
        self.resetWorkerPropsOnStop()
        CLOUD.pop(self.workername, None)
        return defer.succeed(None)

    def check_instance(self):
        return defer.succeed((self.workername in CLOUD, ""))
"""

IMPORTS = {
    "from buildbot import config\n": "from latent.worker import config\n",
    "from buildbot.interfaces import LatentWorker": "from latent.errors import LatentWorker",
    "from buildbot.util.latent import": "from latent.worker import",
    "from buildbot.worker import": "from latent.worker import",
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    text = PLUGIN
    for theirs, ours in IMPORTS.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    assert "buildbot" not in text
    (tmp_path / "vm_plugin.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vm_plugin", raising=False)
    return importlib.import_module("vm_plugin")


def test_plugin_builds(plugin: Any, tmp_path: Path) -> None:
    """The plugin's instances run builds, and a build for another image gets another instance."""
    worker = plugin.VmLatentWorker("vm", None, "small", image=Property("image", default="one"), build_wait_timeout=60)
    with ControllerHarness(tmp_path / "state", [worker]) as harness:
        first = harness.submit()
        agent = harness.agent("vm").attach()
        assert plugin.CLOUD["vm"][:3] == ("vm", "small", "one")
        agent.work()
        assert harness.result(first) is Result.SUCCESS
        second = harness.submit(properties={"image": "two"})
        harness.advance(0)
        harness.agent("vm").attach().work()
        assert harness.result(second) is Result.SUCCESS
    assert plugin.CLOUD == {}


@pytest.mark.parametrize(
    ("flavour", "error"),
    [
        ("none", LatentWorkerCannotSubstantiate),
        ("full", LatentWorkerFailedToSubstantiate),
        ("broken", LatentWorkerFailedToSubstantiate),
    ],
)
@ensureDeferred
async def test_plugin_failures(plugin: Any, flavour: str, error: type[Exception]) -> None:
    """What the plugin raises means here what it means there."""
    worker = plugin.VmLatentWorker("vm", None, flavour, image="i")
    args, kwargs = worker.arguments
    await hooks.call(worker.reconfigService, *args, **kwargs)
    worker.enrolment = enrolment_of("vm", 1)
    with pytest.raises(error):
        await hooks.call(worker.start_instance, build())
    await hooks.call(worker.stop_instance)


def test_plugin_mistakes(plugin: Any) -> None:
    """config.error(...) reports a mistake in the declaration."""
    with pytest.raises(ConfigError, match="an image is needed"):
        plugin.VmLatentWorker("vm", None, "small")
