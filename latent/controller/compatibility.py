"""What plugins say of whether the instance that is up will do for a queued build (`isCompatibleWithBuild`).

Only workers with ``builds_may_be_incompatible`` are asked, about each build once while the instance is being started, if it has
room for more than one, and once when it has been: what a plugin says before it has made the instance need not hold of what it
makes. A build waits for the answers about it, all others go on.
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
from latent.core.states import Substantiated, SubstantiatingStarting
from latent.killpoints import here
from latent.model import Build, Offer
from latent.worker import results
from latent.worker.properties import Properties

log = Logger()

ANSWER_TIMEOUT = 30.0
"""Seconds that a plugin has to answer; after that the instance counts as one that won't do."""

_Stage = tuple[str, int, bool]
"""What an answer holds of: a worker's attempt, and whether its start has been answered."""


class Compatibility:
    """``poke`` is called when an answer has come in."""

    def __init__(self, clock: Clock, poke: Callable[[], None]) -> None:
        self._clock = clock
        self._poke = poke
        self._answers: dict[_Stage, dict[int, bool]] = {}
        self._asked: dict[_Stage, set[int]] = {}
        self._calls: set[Deferred[object]] = set()
        self.trouble: dict[str, str] = {}
        """What went wrong the last time that a worker's plugin was asked."""

    def incompatible(self, post: Post) -> frozenset[int]:
        """The builds that the worker's instance won't do for."""
        if not isinstance(post, Lifecycle) or (stage := _stage(post)) is None:
            return frozenset()
        return frozenset(build for build, good in self._answers.get(stage, {}).items() if not good)

    def ask(self, roster: Roster, offers: Mapping[str, Offer], lines: Iterable[Line], queue: BuildQueue) -> set[int]:
        """Ask what is not known yet. The builds about which answers are outstanding: a plan would replace the wrong instances."""
        up = {stage: post for post in roster.latent() if (stage := _stage(post)) is not None}
        self._answers = {stage: known for stage, known in self._answers.items() if stage in up}
        self._asked = {stage: asked for stage, asked in self._asked.items() if stage in up}
        for stage, post in up.items():
            known = self._answers.setdefault(stage, {})
            asked = self._asked.setdefault(stage, set())
            offer = {**offers[post.name], WORKER: frozenset({post.name})}
            for line in lines:
                if not matches(line.requirements, post.name, offer, payload=line.payload):
                    continue
                for _, build_id in line.builds:
                    build = queue.get(build_id)
                    if build is None or build_id in known or build_id in asked:
                        continue
                    if post.knows_instance:
                        asked.add(build_id)
                        self._ask_one(post, stage, build)
                    else:
                        known[build_id] = False  # it could not be resumed: nobody knows what it was made from
        return set().union(*self._asked.values())

    def stop(self) -> None:
        for call in list(self._calls):
            call.cancel()

    def _ask_one(self, post: Lifecycle, stage: _Stage, build: Build) -> None:
        properties = Properties()
        for name, value in build.request.properties.items():
            properties.setProperty(name, value, "Build")
        here("compatibility.ask.before")
        answer: Deferred[object] = ask(self._clock, ANSWER_TIMEOUT, post.plugin.isCompatibleWithBuild, properties)
        self._calls.add(answer)

        def answered(result: object) -> None:
            here("compatibility.ask.answered")
            self._calls.discard(answer)
            self._asked.get(stage, set()).discard(build.id)
            self._answers.setdefault(stage, {})[build.id] = result is True
            if isinstance(result, Failure):
                log.warn("{worker}: isCompatibleWithBuild failed: {error}", worker=post.name, error=result.value)
                self.trouble[post.name] = f"isCompatibleWithBuild failed: {failure_of(result).message}"
            else:
                self.trouble.pop(post.name, None)
            self._poke()

        answer.addCallback(lambda result: results.compatible_result(post.plugin, result)).addBoth(answered)


def _stage(post: Lifecycle) -> _Stage | None:
    """None for a worker that need not be asked: it has no instance that another build could get."""
    if post.setting_up or not post.plugin.builds_may_be_incompatible:
        return None
    match post.state:
        case Substantiated(attempt=attempt, start=start):
            return post.name, attempt, start is None
        case SubstantiatingStarting(attempt=attempt, start=start) if not post.is_to_begin and (post.plugin.max_builds or 1) > 1:
            return post.name, attempt, start is None
        case _:
            return None
