"""The peer's side of the cycle benchmark: runs inside Buildbot's own environment, never inside latent's.

    python buildbot_driver.py BASEDIR --workers 50 --builds 200

`BASEDIR` is what `buildbot create-master` made. The one process is the master, its workers and their agents: nothing
but Buildbot's own work is measured. Each build is one step that succeeds at once, and each goes through a whole
life of its worker: substantiated for the build, attached, insubstantiated right after it (`build_wait_timeout=0`).

Prints one JSON object as the last line of its output (see `buildbot_peer.run_peer` for its keys). Exit code 0 when every
build succeeded and every instance that was started was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from buildbot.config.master import MasterConfig
from buildbot.master import BuildMaster
from buildbot.plugins import steps, util
from buildbot.process.results import SUCCESS
from buildbot.schedulers.base import ReconfigurableBaseScheduler
from buildbot.worker import AbstractLatentWorker
from buildbot_worker.bot import LocalWorker
from twisted.internet import defer, reactor
from twisted.python import log

BUILDER = "cycle"


class Instance(AbstractLatentWorker):
    """A latent worker whose instance is Buildbot's own agent, in this process."""

    started = 0
    stopped = 0

    def reconfigService(self, name: str, password: str | None, **kwargs: Any) -> Any:
        return super().reconfigService(name, password or self.getRandomPass(), **kwargs)

    @defer.inlineCallbacks
    def start_instance(self, build: Any) -> Any:
        Instance.started += 1
        self.agent = LocalWorker(self.name, os.path.join(self.master.basedir, "agents", self.name))
        yield self.agent.setServiceParent(self)
        return True

    @defer.inlineCallbacks
    def stop_instance(self, fast: bool = False) -> Any:
        conn = self.conn
        if conn is not None:
            # The agent has no connection of its own that could break, so the master's end is closed here.
            conn.loseConnection()
            yield conn.waitShutdown()
        yield self.agent.disownServiceParent()
        Instance.stopped += 1
        return True


class Nothing(steps.BuildStep):
    """The step that costs nothing: no command is sent to the agent."""

    name = "nothing"

    async def run(self) -> int:
        return SUCCESS


class Submit(ReconfigurableBaseScheduler):
    """What a build is asked for through: as any scheduler of Buildbot's does it, one buildset a build."""

    @defer.inlineCallbacks
    def submit(self, builds: int) -> Any:
        for number in range(builds):
            yield self.addBuildsetForSourceStampsWithDefaults(reason=f"build {number}", sourcestamps=None, waited_for=False)


def configuration(workers: int) -> dict[str, Any]:
    """The master's configuration: `workers` latent workers and one builder on all of them."""
    names = [f"worker-{number}" for number in range(1, workers + 1)]
    factory = util.BuildFactory([Nothing()])
    return {
        "workers": [Instance(name, None, build_wait_timeout=0) for name in names],
        "builders": [util.BuilderConfig(name=BUILDER, workernames=names, factory=factory)],
        "schedulers": [Submit(name="submit", builderNames=[BUILDER])],
        "protocols": {"null": {}},
        "collapseRequests": False,
        "buildbotNetUsageData": None,
        "db": {"db_url": "sqlite:///state.sqlite"},
    }


class Loader:
    """Gives the master its configuration without a file."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def loadConfig(self) -> Any:
        return MasterConfig.loadFromDict(configuration(self._workers), "benchmark")


@defer.inlineCallbacks
def measure(master: Any, builds: int) -> Any:
    """Submit `builds` builds, wait until all are finished and all instances stopped; the numbers as a dict."""
    results: list[int] = []
    done = defer.Deferred()

    def finished(key: Any, build: dict[str, Any]) -> None:
        results.append(build["results"])
        if len(results) == builds:
            done.callback(None)

    consumer = yield master.mq.startConsuming(finished, ("builds", None, "finished"))
    wall, cpu = time.monotonic(), time.process_time()
    yield master.scheduler_manager.namedServices["submit"].submit(builds)
    yield done
    while Instance.stopped < Instance.started:
        tick = defer.Deferred()
        reactor.callLater(0.01, tick.callback, None)
        yield tick
    seconds, cpu_seconds = time.monotonic() - wall, time.process_time() - cpu
    yield consumer.stopConsuming()
    return {
        "builds": builds,
        "seconds": round(seconds, 3),
        "builds_per_second": round(builds / seconds, 2),
        "cpu_ms_per_build": round(1000 * cpu_seconds / builds, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "succeeded": results.count(SUCCESS),
        "instances": Instance.started,
    }


@defer.inlineCallbacks
def life(options: argparse.Namespace) -> Any:
    """The master from its start to its stop; whether every build succeeded."""
    master = BuildMaster(str(options.basedir), config_loader=Loader(options.workers))
    yield master.startService()
    if not master.running:
        raise RuntimeError("the master did not start")
    numbers = yield measure(master, options.builds)
    yield master.stopService()
    print(json.dumps(numbers), flush=True)
    return numbers["succeeded"] == options.builds


def main() -> int:
    parser = argparse.ArgumentParser(description="Run builds on Buildbot's latent workers and measure them.")
    parser.add_argument("basedir", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--builds", type=int, required=True)
    options = parser.parse_args()
    os.chdir(options.basedir)
    for number in range(1, options.workers + 1):
        Path("agents", f"worker-{number}").mkdir(parents=True)
    succeeded = []

    def run() -> None:
        d = life(options)
        d.addCallback(succeeded.append)
        d.addErrback(log.err, "the benchmark failed")
        d.addBoth(lambda _: reactor.stop() if reactor.running else None)

    # Buildbot always keeps a log; here it is also what tells why a run failed.
    with Path("twistd.log").open("w", encoding="utf-8") as logfile:
        log.startLogging(logfile, setStdout=False)
        reactor.callWhenRunning(run)
        reactor.run()
    return 0 if succeeded == [True] else 1


if __name__ == "__main__":
    sys.exit(main())
