"""A controller's worth of writing, to be killed: ``python -m tests.store.crasher STATE_DIR``.

Twenty workers lead builds through their lives at once. Each fact is reported, as a line of JSON, when the store has answered:
["build", id], ["run", id, build id], ["done", run id, build id], ["state", worker, attempt].
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from latent.model import Attempt, LogLine
from latent.store import attempts, builds, journal
from latent.store.database import Store
from tests.store.helpers import REQUEST, finish, url


def say(*fact: Any) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


async def lead_life(store: Store, worker: str) -> None:
    states, _ = await store.read(journal.load)
    number = states.get(worker, {"attempt": 0})["attempt"]
    while True:
        number += 1
        attempt = Attempt(worker, number)
        build = await store.write(lambda conn: builds.insert(conn, REQUEST, 1.0))
        say("build", build.id)

        def start(conn: Any, attempt: Attempt = attempt, build_id: int = build.id) -> int:
            attempts.begin(conn, attempt, str(attempt), 1.0)
            journal.record(conn, worker, 1.0, "Started", {}, {"state": "SUBSTANTIATED", "attempt": attempt.number})
            return builds.claim(conn, build_id, worker, worker, attempt.number, 2.0)

        run_id = await store.write(start)
        say("run", run_id, build.id)
        say("state", worker, number)
        await store.write(lambda conn, run_id=run_id: builds.activate(conn, run_id, 1, 3.0))
        store.logs.append(run_id, [LogLine(step_uuid="u", line=n, time=0.5, stream="stdout", text="x" * 50) for n in range(20)])
        if random.random() < 0.3:
            await store.finish_log(run_id)

        def stop(conn: Any, attempt: Attempt = attempt, run_id: int = run_id) -> None:
            finish(conn, run_id)
            attempts.stopped(conn, attempt, 9.0)

        await store.write(stop)
        say("done", run_id, build.id)


def main(state_dir: Path) -> None:
    store = Store.open(url(state_dir), state_dir, reactor=reactor)
    for n in range(20):
        Deferred.fromCoroutine(lead_life(store, f"w{n}"))
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
