"""The peer's side of the Docker benchmark: Buildbot's own Docker worker, inside Buildbot's environment, never inside latent's.

    python buildbot_docker_driver.py BASEDIR SETTINGS.json

`BASEDIR` is what `buildbot create-master` made. ``SETTINGS``: host (the daemon's URL), image, command, volumes, containers (how
many at once).

Submits one build for each worker, twice; all have to be substantiated for it, at once. The first time is not counted. Prints one
JSON object as its last line: ``started`` and ``attached``, the seconds from the first call of start_instance until the last one
has answered, and until the last agent was attached. Exit code 0 when every build succeeded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from buildbot.config.master import MasterConfig
from buildbot.master import BuildMaster
from buildbot.plugins import steps, util
from buildbot.process.results import SUCCESS
from buildbot.schedulers.base import ReconfigurableBaseScheduler
from buildbot.worker.docker import DockerLatentWorker
from twisted.internet import defer, reactor
from twisted.python import log


class Container(DockerLatentWorker):
    """Buildbot's Docker worker, with a look at the clock."""

    began: ClassVar[list[float]] = []
    started: ClassVar[list[float]] = []
    attached_at: ClassVar[list[float]] = []
    stopped = 0

    @defer.inlineCallbacks
    def start_instance(self, build: Any) -> Any:
        Container.began.append(time.monotonic())
        answer = yield super().start_instance(build)
        Container.started.append(time.monotonic())
        return answer

    @defer.inlineCallbacks
    def attached(self, conn: Any) -> Any:
        Container.attached_at.append(time.monotonic())
        yield super().attached(conn)

    @defer.inlineCallbacks
    def stop_instance(self, fast: bool = False) -> Any:
        answer = yield super().stop_instance(fast)
        Container.stopped += 1
        return answer


class Nothing(steps.BuildStep):
    name = "nothing"

    async def run(self) -> int:
        return SUCCESS


class Submit(ReconfigurableBaseScheduler):
    @defer.inlineCallbacks
    def submit(self) -> Any:
        yield self.addBuildsetForSourceStampsWithDefaults(reason="one for each worker", sourcestamps=None, waited_for=False)


def configuration(settings: dict[str, Any]) -> dict[str, Any]:
    names = [f"bb-{number}" for number in range(1, settings["containers"] + 1)]
    keywords = {
        "docker_host": settings["host"],
        "image": settings["image"],
        "command": settings["command"],
        "volumes": settings["volumes"],
        "hostconfig": {"network_mode": "host"},
        "masterFQDN": "127.0.0.1",
        "build_wait_timeout": 0,
    }
    return {
        "workers": [Container(name, None, **keywords) for name in names],
        # One builder a worker: a single buildset then asks for all of them at once.
        "builders": [util.BuilderConfig(name=name, workernames=[name], factory=util.BuildFactory([Nothing()])) for name in names],
        "schedulers": [Submit(name="submit", builderNames=names)],
        "protocols": {"pb": {"port": "tcp:0:interface=127.0.0.1"}},
        "buildbotNetUsageData": None,
        "db": {"db_url": "sqlite:///state.sqlite"},
    }


class Loader:
    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    def loadConfig(self) -> Any:
        return MasterConfig.loadFromDict(configuration(self._settings), "benchmark")


@defer.inlineCallbacks
def one_round(master: Any, containers: int) -> Any:
    """(started, attached) in seconds, once every build has ended and every container is gone."""
    for seen in (Container.began, Container.started, Container.attached_at):
        seen.clear()
    Container.stopped = 0
    results: list[int] = []
    done = defer.Deferred()

    def finished(key: Any, build: dict[str, Any]) -> None:
        results.append(build["results"])
        if len(results) == containers:
            done.callback(None)

    consumer = yield master.mq.startConsuming(finished, ("builds", None, "finished"))
    yield master.scheduler_manager.namedServices["submit"].submit()
    yield done
    yield consumer.stopConsuming()
    while Container.stopped < containers:
        tick = defer.Deferred()
        reactor.callLater(0.05, tick.callback, None)
        yield tick
    if results.count(SUCCESS) != containers or len(Container.began) != containers:
        raise RuntimeError(f"results {results}, {len(Container.began)} starts")
    began = min(Container.began)
    return max(Container.started) - began, max(Container.attached_at) - began


@defer.inlineCallbacks
def life(basedir: Path, settings: dict[str, Any]) -> Any:
    master = BuildMaster(str(basedir), config_loader=Loader(settings))
    yield master.startService()
    if not master.running:
        raise RuntimeError("the master did not start")
    yield one_round(master, settings["containers"])
    started, attached = yield one_round(master, settings["containers"])
    yield master.stopService()
    print(json.dumps({"started": started, "attached": attached}), flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Start containers with Buildbot's Docker worker and measure it.")
    parser.add_argument("basedir", type=Path)
    parser.add_argument("settings", type=Path)
    options = parser.parse_args()
    settings = json.loads(options.settings.read_text())
    os.chdir(options.basedir)
    succeeded = []

    def run() -> None:
        d = life(options.basedir, settings)
        d.addCallback(succeeded.append)
        d.addErrback(log.err, "the benchmark failed")
        d.addBoth(lambda _: reactor.stop() if reactor.running else None)

    with Path("twistd.log").open("w", encoding="utf-8") as logfile:
        log.startLogging(logfile, setStdout=False)
        reactor.callWhenRunning(run)
        reactor.run()
    return 0 if succeeded == [True] else 1


if __name__ == "__main__":
    sys.exit(main())
