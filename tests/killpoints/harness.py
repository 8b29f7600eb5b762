"""Carries scenarios out, a few side by side, and says what became of each point."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.killpoints.lives import Zygote
from tests.killpoints.providers import Provider
from tests.killpoints.scenarios import Scenario
from tests.killpoints.site import KillSite, Outcome

SIDE_BY_SIDE = 6
"""Controllers that run at once. Most of their time goes by waiting: for agents to start, and to come back."""

MakeProvider = Callable[[Path], Provider]


def run_all(
    scenarios: Sequence[Scenario],
    directory: Path,
    provider: MakeProvider,
    points: Collection[str] | None = None,
    told: Callable[[Outcome], None] = lambda outcome: None,
    modules: Iterable[str] = (),
) -> dict[str, list[Outcome]]:
    """What became of each point, in each scenario that has it. ``points``: only those rounds in which they are.

    ``told`` is called with each outcome when its round is over, in some thread. ``modules``: what the plugins need.
    """
    with Zygote(modules) as zygote, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        runs = [_Run(scenario, directory, provider, zygote, points, told) for scenario in scenarios]
        found: dict[str, list[Outcome]] = {}
        for running in [pool.submit(run.outcomes) for run in runs]:
            for outcome in running.result():
                found.setdefault(outcome.point, []).append(outcome)
    return found


class _Run:
    """One scenario on one site."""

    def __init__(
        self,
        scenario: Scenario,
        directory: Path,
        provider: MakeProvider,
        zygote: Zygote,
        points: Collection[str] | None,
        told: Callable[[Outcome], None],
    ) -> None:
        self._scenario = scenario
        self._groups = [group for group in scenario.groups if points is None or any(at.point in points for at in group)]
        self._directory = directory / scenario.name
        self._provider = provider
        self._zygote = zygote
        self._told = told
        self._done: list[Outcome] = []

    def outcomes(self) -> list[Outcome]:
        if not self._groups:
            return []
        chain = deque(at for group in self._groups for at in group)
        site = KillSite(self._directory, self._zygote, self._provider(self._directory), chain, self._scenario.constants)
        try:
            site.configure(self._scenario.config(site))
            tries = 0
            while site.chain:
                tries += 1
                if self._round(site, last=tries >= self._scenario.tries):
                    tries = 0
            site.stop()
            wrong = [*site.wrong(), *site.left_on_disk(), *site.provider.left()]
            for outcome in self._done:
                outcome.error = outcome.error or "; ".join(wrong)
        except Exception:
            error = traceback.format_exc()
            for at in site.died[len(self._done) :]:
                self._note(at.point, error)
            for at in site.chain:
                self._note(at.point, f"not come to any more: {error}")
        finally:
            site.end()
        return self._done

    def _round(self, site: KillSite, last: bool) -> bool:
        """Whether a controller died, or something was wrong. ``last``: that none came to its point is wrong."""
        before, births = len(site.died), site.provider.births()
        self._scenario.round(site)
        wrong = site.wrong()
        made = site.provider.births() - births
        if self._scenario.instances is not None and made.total() > self._scenario.instances:
            wrong.append(f"it took {made.total()} instances: {', '.join(made)}")
        died = site.died[before:]
        if not died and last:
            at = site.chain.popleft()
            wrong.append(f"no controller came to it {at.passes + 1} times; the last came to {', '.join(site.passed().split())}")
            site.kill()
            site.died.append(at)
            died = [at]
        for at in died:
            self._note(at.point, "; ".join(wrong))
        return bool(died)

    def _note(self, point: str, error: str) -> None:
        self._done.append(Outcome(point, self._scenario.name, error))
        self._told(self._done[-1])


def wanted(request: pytest.FixtureRequest) -> set[str]:
    """The points of the tests of this module that are to be run."""
    module = request.node.path
    specs = [getattr(item, "callspec", None) for item in request.session.items if item.path == module]
    return {spec.params["point"] for spec in specs if spec is not None}


def judge(point: str, found: dict[str, list[Outcome]]) -> None:
    """Say what became of the point, and fail unless all was well."""
    outcomes = found.get(point, [])
    wrong = [f"{outcome.scenario}: {outcome.error}" for outcome in outcomes if outcome.error]
    assert outcomes, f"no scenario comes to {point}"
    print(f"{point}: {'FAILED' if wrong else 'passed'} ({', '.join(one.scenario for one in outcomes)})")
    assert not wrong, "\n".join(wrong)
