"""`python -m tests.killpoints [process|cloud] [POINT...]`: name every point, and what became of it."""

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


def main() -> int:
    kind, *points = sys.argv[1:] or ["process"]
    begun = time.monotonic()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latent-killpoints-")))
        make: MakeProvider = Processes
        if kind == "cloud":
            cloud = stack.enter_context(CloudProcess(directory / "cloud"))
            make = lambda place: InCloud(cloud, place.name)  # noqa: E731
        found = run_all(ALL, directory, make, points or None)
    bad = 0
    for point in points or POINTS:
        outcomes = found.get(point, [])
        wrong = [outcome for outcome in outcomes if outcome.error]
        state = "FAILED" if wrong else "passed" if outcomes else "MISSING"
        bad += state != "passed"
        print(f"{point:34} {state}  {len(outcomes)} times, {', '.join(dict.fromkeys(one.scenario for one in outcomes))}")
        for one in wrong:
            print("    " + one.error.replace("\n", "\n    "))
    print(f"{len(points or POINTS)} points, {bad} not passed, {time.monotonic() - begun:.1f} s with {kind} workers")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
