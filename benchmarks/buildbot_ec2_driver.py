"""The peer's side of the EC2 benchmark: Buildbot's own EC2 worker, inside Buildbot's environment, never inside latent's.

    python buildbot_ec2_driver.py BASEDIR SETTINGS.json

`BASEDIR` is what `buildbot create-master` made. ``SETTINGS``: environment (what makes boto3 talk to the test cloud), region,
image, key_name, subnet, workers (how many), agent (a shell command that runs buildbot-worker; it finds WORKERNAME, WORKERPASS,
BUILDMASTER and BUILDMASTER_PORT in its environment).

One build for each worker is submitted, all at once, so that all are substantiated at once; each instance is terminated after its
build. Prints one JSON object as its last line: ``began`` and ``ended``, POSIX seconds, from the submission until the last
stop_instance has answered: what was called before, when the workers were declared, is not counted. Exit code 0 when every build
succeeded.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from buildbot.config.master import MasterConfig
from buildbot.master import BuildMaster
from buildbot.plugins import steps, util
from buildbot.process.results import SUCCESS
from buildbot.schedulers.base import ReconfigurableBaseScheduler
from buildbot.worker.ec2 import EC2LatentWorker
from twisted.internet import defer, reactor
from twisted.python import log


class Instance(EC2LatentWorker):
    """Buildbot's EC2 worker, which counts its ends."""

    stopped = 0

    @defer.inlineCallbacks
    def stop_instance(self, fast: bool = False) -> Any:
        had_one = self.instance is not None
        answer = yield super().stop_instance(fast)
        Instance.stopped += had_one
        return answer


class Nothing(steps.BuildStep):
    name = "nothing"

    async def run(self) -> int:
        return SUCCESS


class Submit(ReconfigurableBaseScheduler):
    @defer.inlineCallbacks
    def submit(self) -> Any:
        yield self.addBuildsetForSourceStampsWithDefaults(reason="one for each worker", sourcestamps=None, waited_for=False)


def configuration(settings: dict[str, Any], port: int) -> dict[str, Any]:
    names = [f"bb-{number}" for number in range(1, settings["workers"] + 1)]

    def declared(name: str) -> Instance:
        told = {"WORKERNAME": name, "WORKERPASS": f"secret of {name}", "BUILDMASTER": "127.0.0.1", "BUILDMASTER_PORT": str(port)}
        exports = "".join(f"export {key}='{value}'\n" for key, value in told.items())
        return Instance(
            name,
            told["WORKERPASS"],
            "m5.large",
            ami=settings["image"],
            region=settings["region"],
            keypair_name=settings["key_name"],
            subnet_id=settings["subnet"],
            identifier=os.environ["AWS_ACCESS_KEY_ID"],
            secret_identifier=os.environ["AWS_SECRET_ACCESS_KEY"],
            user_data=f"#!/bin/sh\n{exports}exec {settings['agent']}\n",
            build_wait_timeout=0,
        )

    return {
        "workers": [declared(name) for name in names],
        # One builder a worker: a single buildset then asks for all of them at once.
        "builders": [util.BuilderConfig(name=name, workernames=[name], factory=util.BuildFactory([Nothing()])) for name in names],
        "schedulers": [Submit(name="submit", builderNames=names)],
        "protocols": {"pb": {"port": f"tcp:{port}:interface=127.0.0.1"}},
        "buildbotNetUsageData": None,
        "db": {"db_url": "sqlite:///state.sqlite"},
    }


class Loader:
    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    def loadConfig(self) -> Any:
        return MasterConfig.loadFromDict(configuration(self._settings, self._port), "benchmark")


@defer.inlineCallbacks
def life(basedir: Path, settings: dict[str, Any]) -> Any:
    master = BuildMaster(str(basedir), config_loader=Loader(settings))
    yield master.startService()
    if not master.running:
        raise RuntimeError("the master did not start")
    workers = settings["workers"]
    results: list[int] = []
    done = defer.Deferred()

    def finished(key: Any, build: dict[str, Any]) -> None:
        results.append(build["results"])
        if len(results) == workers:
            done.callback(None)

    consumer = yield master.mq.startConsuming(finished, ("builds", None, "finished"))
    began = time.time()
    yield master.scheduler_manager.namedServices["submit"].submit()
    yield done
    yield consumer.stopConsuming()
    while Instance.stopped < workers:
        tick = defer.Deferred()
        reactor.callLater(0.05, tick.callback, None)
        yield tick
    ended = time.time()
    if results.count(SUCCESS) != workers:
        raise RuntimeError(f"results {results}")
    yield master.stopService()
    print(json.dumps({"began": began, "ended": ended}), flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Start instances with Buildbot's EC2 worker.")
    parser.add_argument("basedir", type=Path)
    parser.add_argument("settings", type=Path)
    options = parser.parse_args()
    settings = json.loads(options.settings.read_text())
    os.environ.update(settings["environment"])
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
