"""Agents that have lost their minds, for as long as you like: does the controller stay well, and as large as it was?

    python -m benchmarks.fuzz --gateway peer --gateway pb --frames 1000000 --seed 1

For each gateway a controller is started as a process of its own, with an agent on each gateway that behaves well and gets builds
all the time, and fuzzers that send so many frames (calls, messages, WebSocket frames; whatever the protocol calls a unit) over
real connections: malformed, truncated, in the wrong order, too large. Prints one JSON object for each gateway:

- ``broken``: answers which say that the controller did not know what to do, and calls that hung; ``errors``: what it logged as
  errors; ``exit_code``: how it ended when it was told to
- ``oversized``: messages above the limit, each of them refused
- ``well``: builds that the agents which behave well carried out; ``disturbed``: those that did not succeed at the first try,
  agents that lost their sessions or connections
- ``slowest_ms``: the longest that the controller's loop was busy with one thing
- ``rss_mb``: the process's size after garbage and SQLite's cache were given back, at each tenth of the way; ``heap_mb``: what of
  it malloc has given out: between pieces that are in use there is more and more that is not, for a while, and that is size but no
  leak; ``objects``: how many objects Python has then
- ``growth_mb``, ``heap_growth_mb``: the last three of them over those from the third to the fifth, on the average. What is kept
  of runs and sessions that are over is kept for seconds in this controller, not for minutes: else it grows most of the way
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from latent.cli.reactor import install

reactor = install()

from tests.fuzz.bots import BotsFuzzer  # noqa: E402
from tests.fuzz.buildbot import MsgpackFuzzer, PbFuzzer  # noqa: E402
from tests.fuzz.noise import Noise  # noqa: E402
from tests.fuzz.peer import PeerFuzzer  # noqa: E402
from tests.fuzz.site import ABREAST, WELL, fuzzed, password  # noqa: E402
from tests.fuzz.well import MSGPACK, Well, future  # noqa: E402

CALLERS = {"peer": PeerFuzzer, "bots": BotsFuzzer}
TALKERS = {"pb": PbFuzzer, MSGPACK: MsgpackFuzzer}
TENTHS = 10

PATIENCE = 60.0
"""Seconds that the controller has to end."""


class Child:
    """The controller. Commands and answers are lines of JSON."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}

    async def start(self, folder: Path) -> None:
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "benchmarks.fuzz_controller", str(folder)]
        self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 24)
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._commands = self._process.stdin
        self.ports = json.loads(await self._process.stdout.readline())
        self._reading = asyncio.ensure_future(self._read(self._process.stdout))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            answer = json.loads(line)
            waiting = self._asked.pop(answer["number"])
            if not waiting.done():
                waiting.set_result(answer)
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError("the controller is gone"))

    async def ask(self, what: str, **more: Any) -> Any:
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._commands.write(json.dumps({"number": number, "do": what, **more}).encode() + b"\n")
        return await answer

    async def stop(self) -> int | str:
        """The exit code, or what is to be said in place of it."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.ask("stop")
                code = await self._process.wait()
                await self._reading
        except TimeoutError:
            self._process.kill()
            return f"none: it did not end in {PATIENCE:g} s"
        return code


class Watch:
    """Builds for the agents that behave well, one after the other for each."""

    def __init__(self, child: Child) -> None:
        self.builds = 0
        self.disturbed: list[str] = []
        self.slowest = 0.0
        self._child = child
        self._tasks = [asyncio.ensure_future(self._keep_building(worker)) for worker in WELL.values()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_building(self, worker: str) -> None:
        while True:
            began = time.perf_counter()
            done = await self._child.ask("build", worker=worker)
            self.builds += 1
            self.slowest = max(self.slowest, time.perf_counter() - began)
            if not done.get("good"):
                self.disturbed.append(f"{worker}: {done}")
            await asyncio.sleep(0.5)


class Fuzzers:
    """So many of them, all on one worker of one gateway."""

    def __init__(self, gateway: str, port: int, seed: int, abreast: int) -> None:
        who = [fuzzed(gateway, number) for number in range(abreast)]
        noises = [Noise(f"{gateway} {seed} {number}") for number in range(abreast)]
        self._calls = gateway in CALLERS
        self.all: list[Any]
        if self._calls:
            self.all = [CALLERS[gateway](port, password(name), noise) for name, noise in zip(who, noises, strict=True)]
        else:
            self.all = [TALKERS[gateway](port, name, password(name), noise) for name, noise in zip(who, noises, strict=True)]

    async def play(self, frames: int) -> None:
        share = -(-frames // len(self.all))
        plays = [fuzzer.play(share) for fuzzer in self.all]
        await asyncio.gather(*(play if self._calls else future(play) for play in plays))

    async def close(self) -> None:
        if self._calls:
            await asyncio.gather(*(fuzzer.close() for fuzzer in self.all))

    def statuses(self) -> dict[str, int]:
        return dict(sum((Counter(getattr(fuzzer, "statuses", {})) for fuzzer in self.all), Counter()))


async def fuzz(gateway: str, frames: int, seed: int, abreast: int) -> dict[str, Any]:
    """One gateway's share."""
    child = Child()
    with tempfile.TemporaryDirectory(prefix="latent-fuzz-") as name:
        await child.start(Path(name))
        well = Well(child.ports)
        await well.start()
        watch = Watch(child)
        while watch.builds < len(WELL):
            await asyncio.sleep(0.1)
        before = (await child.ask("sessions"))["open"]
        for number in range(abreast):
            await child.ask("feed", worker=fuzzed(gateway, number))
        fuzzers = Fuzzers(gateway, child.ports[gateway], seed, abreast)
        measured, began = [], time.perf_counter()
        for tenth in range(TENTHS):
            await fuzzers.play(frames // TENTHS)
            measured.append(await child.ask("measure"))
            print(f"{gateway}: {(tenth + 1) * 10} %, {measured[-1]['rss_mb']} MB", file=sys.stderr, flush=True)
        seconds = time.perf_counter() - began
        after = (await child.ask("sessions"))["open"]
        await watch.stop()
        disturbed = watch.disturbed + [f"{worker} lost its session" for worker in before if after[worker] != before[worker]]
        disturbed += map(repr, await well.stop())
        await fuzzers.close()
        code = await child.stop()
    sent = sum(fuzzer.frames for fuzzer in fuzzers.all)
    return {
        "gateway": gateway,
        "frames": sent,
        "connections": sum(getattr(fuzzer, "connections", 1) for fuzzer in fuzzers.all),
        "seconds": round(seconds, 1),
        "frames_per_second": round(sent / seconds),
        "statuses": fuzzers.statuses(),
        "oversized": sum(fuzzer.oversized for fuzzer in fuzzers.all),
        "broken": [one for fuzzer in fuzzers.all for one in fuzzer.broken][:20],
        "errors": measured[-1]["errors"],
        "found": measured[-1]["found"],
        "exit_code": code,
        "builds_for_the_fuzzed": measured[-1]["builds_for_the_fuzzed"],
        "well": watch.builds,
        "disturbed": disturbed[:20],
        "slowest_build_ms": round(watch.slowest * 1000),
        "slowest_ms": max(each["slowest_ms"] for each in measured),
        "rss_mb": [each["rss_mb"] for each in measured],
        "heap_mb": [each["heap_mb"] for each in measured],
        "objects": [each["objects"] for each in measured],
        "growth_mb": _growth([each["rss_mb"] for each in measured]),
        "heap_growth_mb": _growth([each["heap_mb"] for each in measured]),
    }


def _growth(sizes: list[float]) -> float:
    return round(fmean(sizes[-3:]) - fmean(sizes[2:5]), 1)


async def _main(options: argparse.Namespace) -> None:
    try:
        for gateway in options.gateway or WELL:
            print(json.dumps(await fuzz(gateway, options.frames, options.seed, options.abreast), indent=1), flush=True)
    finally:
        reactor.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", action="append", choices=sorted(WELL), help="may be given several times; all if left out")
    parser.add_argument("--frames", type=int, default=100_000, help="frames for each gateway")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--abreast", type=int, default=4, choices=range(1, ABREAST + 1), help="fuzzers at the same time")
    options = parser.parse_args()
    tasks: list[asyncio.Future[None]] = []  # what nobody refers to may be collected while it waits
    reactor.callWhenRunning(lambda: tasks.append(asyncio.ensure_future(_main(options))))
    reactor.run()
    if not tasks[0].done():
        sys.exit("stopped before the end")
    tasks[0].result()


if __name__ == "__main__":
    main()
