"""What plugins say of whether the instance that is up will do for a queued build (`isCompatibleWithBuild`).

Only workers with ``builds_may_be_incompatible`` are asked, once for each attempt and build. A build waits for the answers about
it, all others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.asking import ask
from latent.controller.clock import Clock
from latent.controller.failures import failure_of
from latent.controller.lifecycle import Lifecycle
from latent.controller.queue import BuildQueue
from latent.controller.roster import Post, Roster
from latent.core.matching import matches
from latent.core.planning import WORKER, Line
from latent.core.states import Substantiated, Substantiating, SubstantiatingStarting
from latent.killpoints import here
from latent.model import Attempt, Build, Offer
from latent.worker import results
from latent.worker.properties import Properties

log = Logger()

ANSWER_TIMEOUT = 30.0
"""Seconds that a plugin has to answer; after that the instance counts as one that won't do."""


class Compatibility:
    """``poke`` is called when an answer has come in."""

    def __init__(self, clock: Clock, poke: Callable[[], None]) -> None:
        self._clock = clock
        self._poke = poke
        self._answers: dict[Attempt, dict[int, bool]] = {}
        self._asked: dict[Attempt, set[int]] = {}
        self._calls: set[Deferred[object]] = set()
        self.trouble: dict[str, str] = {}
        """What went wrong the last time that a worker's plugin was asked."""

    def incompatible(self, post: Post) -> frozenset[int]:
        """The builds that the worker's instance won't do for."""
        if not isinstance(post, Lifecycle) or not _is_up_and_picky(post):
            return frozenset()
        return frozenset(build for build, good in self._answers.get(post.attempt, {}).items() if not good)

    def ask(self, roster: Roster, offers: Mapping[str, Offer], lines: Iterable[Line], queue: BuildQueue) -> set[int]:
        """Ask what is not known yet. The builds about which answers are outstanding: a plan would replace the wrong instances."""
        up = [post for post in roster.latent() if _is_up_and_picky(post)]
        current = {post.attempt for post in up}
        for gone in [attempt for attempt in self._answers if attempt not in current]:
            del self._answers[gone]
        self._asked = {attempt: asked for attempt, asked in self._asked.items() if attempt in current}
        for post in up:
            known = self._answers.setdefault(post.attempt, {})
            asked = self._asked.setdefault(post.attempt, set())
            offer = {**offers[post.name], WORKER: frozenset({post.name})}
            for line in lines:
                if not matches(line.requirements, post.name, offer, payload=line.payload):
                    continue
                for _, build_id in line.builds:
                    build = queue.get(build_id)
                    if build is not None and build_id not in known and build_id not in asked:
                        asked.add(build_id)
                        self._ask_one(post, post.attempt, build)
        return set().union(*self._asked.values())

    def stop(self) -> None:
        for call in list(self._calls):
            call.cancel()

    def _ask_one(self, post: Lifecycle, attempt: Attempt, build: Build) -> None:
        properties = Properties()
        for name, value in build.request.properties.items():
            properties.setProperty(name, value, "Build")
        here("compatibility.ask.before")
        answer: Deferred[object] = ask(self._clock, ANSWER_TIMEOUT, post.plugin.isCompatibleWithBuild, properties)
        self._calls.add(answer)

        def answered(result: object) -> None:
            here("compatibility.ask.answered")
            self._calls.discard(answer)
            self._asked.get(attempt, set()).discard(build.id)
            self._answers.setdefault(attempt, {})[build.id] = result is True
            if isinstance(result, Failure):
                log.warn("{worker}: isCompatibleWithBuild failed: {error}", worker=post.name, error=result.value)
                self.trouble[post.name] = f"isCompatibleWithBuild failed: {failure_of(result).message}"
            else:
                self.trouble.pop(post.name, None)
            self._poke()

        answer.addCallback(lambda result: results.compatible_result(post.plugin, result)).addBoth(answered)


def _is_up_and_picky(post: Lifecycle) -> bool:
    if not post.plugin.builds_may_be_incompatible:
        return False
    return isinstance(post.state, Substantiating | SubstantiatingStarting | Substantiated)
