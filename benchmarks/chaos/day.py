"""A day of chaos: everything is started, what the schedule says befalls it, all is mended, and the ledger is made."""

from __future__ import annotations

import heapq
import itertools
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.chaos import schedule
from benchmarks.chaos.asker import Asker
from benchmarks.chaos.controller import Away, Controller, Refused
from benchmarks.chaos.in_cloud import InCloud
from benchmarks.chaos.in_docker import InDocker
from benchmarks.chaos.in_ec2 import QUICK, InEC2
from benchmarks.chaos.ledger import STEP, Facts, balance, step_lines, stored
from benchmarks.chaos.part import Part, Processes, Unavailable

STEP_SECONDS = 0.1
"""Between two looks at what is due."""

PATIENCE = 900.0
"""Seconds that builds may take to end, and instances to go, once nothing goes wrong any more."""

CONFIG = """from latent.plugins import util, worker
from latent.testing.cloud import CloudLatentWorker
{quick}
c["limits"] = {{"session_timeout": 20, "max_instances": 8}}
c["reaper"] = {{"interval": 20, "min_age": 15}}
c["builders"] = [
    util.Builder(
        "chaos",
        [util.Step(["sh", "{step}", util.Property("token"), util.Property("nap"), util.Property("code")])],
        max_attempts=1000,
    )
]
c["workers"] = [
    {workers}
]
"""


class Day:
    """``say``: told what happens, as it does. ``without``: parts that are left out, whatever this machine has.

    ``faults``, ``asks``: in place of what the seed says.
    """

    def __init__(
        self,
        seed: int,
        seconds: float,
        *,
        without: Collection[str] = (),
        say: Callable[[str], None] = print,
        faults: Sequence[schedule.Fault] | None = None,
        asks: Sequence[schedule.Ask] | None = None,
    ) -> None:
        self.seed, self.seconds = seed, seconds
        self.kept: Path | None = None
        self._faults = schedule.faults(seed, seconds) if faults is None else faults
        self._asks = schedule.asks(seed, seconds) if asks is None else asks
        self._without = without
        self._say = say
        self._began = time.monotonic()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._struck: Counter[str] = Counter()
        self._missed = 0
        self._variant = 0
        self._parts: dict[str, Part] = {}
        self._left_out: dict[str, str] = {}

    def live(self) -> dict[str, Any]:
        """All of it, and the ledger. Nothing is left behind but, where it does not add up, the directory ``kept``."""
        self._directory = Path(tempfile.mkdtemp(prefix="latent-chaos-"))
        with ExitStack() as stack:
            stack.callback(self._remove)
            self._controller = Controller(self._directory, self.later)
            stack.callback(self._controller.close)
            self._make_parts(stack)
            self._configure()
            self._asker = Asker(self._controller, self._asks, self._parts)
            self._controller.start()
            self._pass_until(PATIENCE, self._is_up, "the controller to come up")
            self._began = time.monotonic()
            self._asker.start()
            stack.callback(self._asker.end)
            for fault in self._faults:
                self.later(fault.at, partial(self._strike, fault))
            self._pass(self.seconds)
            mended = time.monotonic()
            wrong = self._come_to_rest()
            ledger = self._ledger(wrong, time.monotonic() - mended)
            if ledger["disagreements"]:
                self._keep()
        return ledger

    # --- what is there -------------------------------------------------------------------------------------------------------

    def _make_parts(self, stack: ExitStack) -> None:
        makers: dict[str, Callable[[], Part]] = {
            "process": lambda: Processes(self._directory, self.later),
            "docker": lambda: InDocker(self._directory, self.later),
            "cloud": lambda: InCloud(self._directory, self.seed, self.later),
            "ec2": lambda: InEC2(self.later),
        }
        for name, make in makers.items():
            if name in self._without:
                self._left_out[name] = "not wanted"
                continue
            try:
                part = self._parts[name] = make()
            except Unavailable as reason:
                self._left_out[name] = str(reason)
                self._tell(f"without {name}: {reason}")
                continue
            stack.callback(part.close)

    def _configure(self) -> None:
        step = self._directory / "step.sh"
        step.write_text(STEP.format(directory=self._directory))
        config = CONFIG.format(
            quick=QUICK if "ec2" in self._parts else "",
            step=step,
            workers=",\n    ".join(part.declared(self._variant) for part in self._parts.values()),
        )
        draft = self._directory / "master.cfg.new"
        draft.write_text(config)
        draft.replace(self._directory / "master.cfg")

    def _is_up(self) -> bool:
        try:
            self._controller.call("GET", "status")
        except (Away, Refused):
            return False
        return True

    # --- time ----------------------------------------------------------------------------------------------------------------

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self._now() + seconds, next(self._order), call))

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _pass(self, until: float) -> None:
        while self._now() < until:
            self._pass_a_step()

    def _pass_a_step(self) -> None:
        while self._due and self._due[0][0] <= self._now():
            heapq.heappop(self._due)[2]()
        self._controller.look()
        time.sleep(STEP_SECONDS)

    def _pass_until(self, seconds: float, ready: Callable[[], bool], what: str) -> str:
        """Until it is so; a complaint if it does not come to be, else ""."""
        until = self._now() + seconds
        while not ready():
            if self._now() > until:
                return f"waited {seconds:g} s for {what}, in vain"
            self._pass_a_step()
        return ""

    # --- what goes wrong -----------------------------------------------------------------------------------------------------

    def _strike(self, fault: schedule.Fault) -> None:
        if fault.kind == "controller.reconfig":
            struck = self._reconfigure()
        elif fault.part == "controller":
            struck = self._controller.strike(fault.what, fault.seconds)
        elif fault.part in self._parts:
            struck = self._parts[fault.part].strike(fault.what, fault.seconds, fault.lot)
        else:
            return
        if struck:
            self._struck[fault.kind] += 1
        else:
            self._missed += 1
        lasts = f" for {fault.seconds:g} s" if fault.seconds else ""
        self._tell(f"{fault.kind}{lasts}: {struck or 'nothing to strike'}")

    def _reconfigure(self) -> str:
        self._variant += 1
        self._configure()
        try:
            changes = self._controller.call("POST", "reconfig")["changes"]
        except Away:
            return "master.cfg, for the next start"
        except Refused as error:
            if not error.passes:
                self._controller.wrong.append(str(error))
            return str(error)
        return f"{len(changes)} changes"

    # --- its end -------------------------------------------------------------------------------------------------------------

    def _come_to_rest(self) -> list[str]:
        """Mend everything, wait for the builds and the instances, and stop the controller in order; what did not come to be."""
        self._tell("nothing goes wrong any more")
        # What is still to come are ends of faults and starts of what is away.
        due, self._due = self._due, []
        for _, _, call in due:
            call()
        self._controller.mend()
        for part in self._parts.values():
            part.mend()
        self._pass_until(PATIENCE, lambda: self._controller.ended(0) or not self._controller.stopping, "a controller to stop")
        self._controller.start()
        told = [
            self._pass_until(PATIENCE, lambda: self._asker.done, "all builds to be asked for"),
            self._pass_until(PATIENCE, self._all_finished, "all builds to end"),
            self._pass_until(PATIENCE, self._none_condemned, "all condemned instances to be destroyed"),
        ]
        self._asker.end()
        self._tell("stopping")
        self._controller.stop()
        if not self._controller.ended(PATIENCE):
            told.append("the controller does not stop")
        return [one for one in told if one]

    def _all_finished(self) -> bool:
        return self._looks_well("builds?state=queued,starting,running&limit=1", lambda answer: not answer["builds"])

    def _none_condemned(self) -> bool:
        def well(answer: Any) -> bool:
            return not [one for one in answer["items"] if not one["ok"] and one["subject"].startswith(("attempt", "instance"))]

        return self._looks_well("health", well)

    def _looks_well(self, path: str, well: Callable[[Any], bool]) -> bool:
        try:
            return well(self._controller.call("GET", path))
        except (Away, Refused):
            return False

    def _ledger(self, wrong: list[str], rest: float) -> dict[str, Any]:
        builds, attempts = stored(self._controller.state / "latent.sqlite")
        facts = Facts(
            asked=self._asker.asked,
            builds=builds,
            attempts=attempts,
            steps=step_lines(self._directory / "steps"),
            births={name: part.births() for name, part in self._parts.items()},
            left={name: part.left() for name, part in self._parts.items()},
            wrong=[
                *wrong,
                *self._controller.wrong,
                *self._asker.wrong,
                *(f"{name}: {told}" for name, part in self._parts.items() for told in part.wrong()),
            ],
        )
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "left_out": self._left_out,
            "faults": {"struck": self._struck.total(), "nothing_to_strike": self._missed, **dict(sorted(self._struck.items()))},
            "controllers": dict(self._controller.lives),
            "unanswered": self._asker.in_doubt,
            "until_rest": round(rest, 1),
            **balance(facts),
        }

    def _keep(self) -> None:
        """For whoever wants to know why: its disk goes with the controller."""
        self.kept = self._directory
        shutil.copytree(self._controller.state, self._directory / "kept", ignore=shutil.ignore_patterns("*.sock"))

    def _remove(self) -> None:
        if self.kept is None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _tell(self, what: str) -> None:
        self._say(f"{self._now():8.1f} s  {what}")
