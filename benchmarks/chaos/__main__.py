"""A controller with workers of all plugins while everything goes wrong that can, and what is left of it all: a ledger.

    python -m benchmarks.chaos --minutes 30 --seed 1

The controller is a real one; its workers are processes, containers on a Docker daemon of their own, instances of the test cloud
(`latent.testing.cloud`) and of EC2 as `latent.testing.ec2` has it. Builds are asked for all the time. Meanwhile the controller is
killed with -9, suspended, stopped, given another master.cfg and a full disk; agents are killed and suspended; dockerd is killed;
containers and instances vanish; calls of the clouds fail, hang, come late or twice, are throttled and find no room. What happens
and when follows from the seed (`--plan` shows it). Then all is mended, the controller ends its builds and is stopped, and the
providers are looked at. What happens is told on standard error; the ledger, one JSON object, goes to standard output:

    faults                how many struck, by kind; nothing_to_strike: there was no such instance, or no controller, just then
    controllers           how often one was started, killed, stopped; "ended by itself" has to be missing
    unanswered            submissions that the controller did not live to answer: they are asked for again
    until_rest            seconds from when all was mended until no build and no instance was left
    builds                asked for, ended (by result), lost (taken, and not ended: has to be 0), doubled (carried out twice, or
                          twice at once: has to be 0)
    runs                  tries of the builds: by status, and how many began their step
    instances             by kind of worker: attempts; of these, stopped and destroyed (by the reaper, as their stop had failed);
                          started and leaked: instances, by the provider's own account
    leaked                instances that are left, and attempts that are not over: has to be 0
    disagreements         all that does not add up, in words; with any of them the exit code is 1, and what the controller left
                          behind is kept

What this machine can't have is left out, and says so: Docker needs root, dockerd and busybox.
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.chaos import schedule
from benchmarks.chaos.day import Day


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description="Everything goes wrong; then count.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", action="append", choices=schedule.PARTS, default=[], help="repeatable")
    parser.add_argument("--plan", action="store_true", help="show what would happen, and end")
    options = parser.parse_args()
    seconds = 60 * options.minutes
    if options.plan:
        for fault in schedule.faults(options.seed, seconds):
            print(fault)
        return 0
    day = Day(options.seed, seconds, without=options.without, say=lambda line: print(line, file=sys.stderr, flush=True))
    ledger = day.live()
    print(json.dumps(ledger, indent=2))
    if day.kept is not None:
        print(f"it does not add up; what there was is in {day.kept}", file=sys.stderr)
    return 1 if ledger["disagreements"] else 0


if __name__ == "__main__":
    sys.exit(main())
