"""`python -m tests.killpoints [process|cloud] [POINT|SCENARIO...]`: name every point, and what became of it."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from latent.killpoints import POINTS
from latent.testing.cloud.remote import CloudProcess
from tests.killpoints.harness import MakeProvider, run_all
from tests.killpoints.providers import InCloud, Processes
from tests.killpoints.scenarios import ALL
from tests.killpoints.site import Outcome


def main() -> int:
    kind, *chosen = sys.argv[1:] or ["process"]
    scenarios = [scenario for scenario in ALL if scenario.name in chosen] or ALL
    points = [name for name in chosen if name in POINTS]
    begun = time.monotonic()

    def told(outcome: Outcome) -> None:
        print(
            f"{time.monotonic() - begun:6.1f} s  {outcome.scenario:10} {outcome.point:34} {outcome.error or 'passed'}", flush=True
        )

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latent-killpoints-")))
        make: MakeProvider = Processes
        if kind == "cloud":
            cloud = stack.enter_context(CloudProcess(directory / "cloud"))
            make = lambda place: InCloud(cloud, place.name)  # noqa: E731
        found = run_all(scenarios, directory, make, points or None, told)
    print()
    bad = 0
    for point in found if chosen else POINTS:
        outcomes = found.get(point, [])
        wrong = [outcome for outcome in outcomes if outcome.error]
        state = "FAILED" if wrong else "passed" if outcomes else "MISSING"
        bad += state != "passed"
        print(f"{point:34} {state}  {', '.join(dict.fromkeys(one.scenario for one in outcomes))}")
    print(f"{len(found)} points, {bad} not passed, {time.monotonic() - begun:.1f} s with {kind} workers")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
