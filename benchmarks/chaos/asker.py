"""Who asks for builds: at the times that the schedule says, again and again until the controller answers."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.chaos.controller import Away, Controller, Refused
from benchmarks.chaos.ledger import Asked
from benchmarks.chaos.schedule import Ask

AGAIN = 0.7
"""Seconds after which a controller that did not answer is asked again."""

LOOK = 5.0
"""Seconds between two looks at workers that back off, whom the operator takes back."""


class Asker:
    """A thread of its own, so that it is asking just when its controller dies.

    What was not answered is asked for again under another name: the first may have been heard. ``parts``: those that there are;
    what is for others is for any worker.
    """

    def __init__(self, controller: Controller, asks: Iterable[Ask], parts: Iterable[str]) -> None:
        self.asked: list[Asked] = []
        self.wrong: list[str] = []
        self.in_doubt = 0
        self._controller = controller
        self._parts = frozenset(parts)
        self._order = itertools.count()
        self._due: list[tuple[float, int, Any]] = [(ask.at, next(self._order), ask) for ask in asks]
        heapq.heapify(self._due)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asker", daemon=True)

    def start(self) -> None:
        self._began = time.monotonic()
        self._looked = 0.0
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether all that was to be asked for was."""
        return not self._due

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            now = time.monotonic() - self._began
            if self._due and self._due[0][0] <= now:
                at, _, what = self._due[0]
                again = self._carry_out(at, what)
                heapq.heappop(self._due)
                if again is not None:
                    heapq.heappush(self._due, (now + AGAIN, next(self._order), again))
            if now - self._looked > LOOK:
                self._looked = now
                self._take_back()

    def _carry_out(self, at: float, what: Ask | int) -> Ask | int | None:
        """What is to be done once more; None if it is done."""
        try:
            if isinstance(what, int):
                self._controller.call("POST", f"builds/{what}/cancel", reason="by chance")
            else:
                self._submit(at, what)
        except (Away, Refused) as error:
            if isinstance(error, Refused) and not error.passes:
                self.wrong.append(str(error))
                return None
            return what
        return None

    def _submit(self, at: float, ask: Ask) -> None:
        token = f"t{len(self.asked)}"
        self.asked.append(Asked(token=token, results=ask.results))
        labels = {"part": ask.part} if ask.part in self._parts else {}
        properties = {"token": token, "nap": str(ask.nap), "code": str(ask.code)}
        try:
            answer = self._controller.call("POST", "builds", builder="chaos", properties=properties, labels=labels)
        except Away:
            self.in_doubt += 1
            raise
        self.asked[-1] = Asked(token=token, results=ask.results, build=int(answer["id"]))
        if ask.cancel_after is not None:
            heapq.heappush(self._due, (at + ask.cancel_after, next(self._order), int(answer["id"])))

    def _take_back(self) -> None:
        try:
            for worker in self._controller.call("GET", "workers")["workers"]:
                if (worker["quarantined_until"] or 0) > time.time():
                    self._controller.call("POST", f"workers/{worker['name']}/unpause")
        except (Away, Refused):
            # The next look sees it.
            return
