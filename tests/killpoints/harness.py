"""Carries scenarios out, a few side by side, and says what became of each point."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Collection, Sequence
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
    scenarios: Sequence[Scenario], directory: Path, provider: MakeProvider, points: Collection[str] | None = None
) -> dict[str, list[Outcome]]:
    """What became of each point, in each scenario that has it. ``points``: only those rounds in which they are."""
    with Zygote() as zygote, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        running = [pool.submit(run, scenario, directory, provider, zygote, points) for scenario in scenarios]
        found: dict[str, list[Outcome]] = {}
        for one in running:
            for outcome in one.result():
                found.setdefault(outcome.point, []).append(outcome)
    return found


def run(
    scenario: Scenario, directory: Path, provider: MakeProvider, zygote: Zygote, points: Collection[str] | None
) -> list[Outcome]:
    groups = [group for group in scenario.groups if points is None or any(at.point in points for at in group)]
    if not groups:
        return []
    place = directory / scenario.name
    chain = deque(at for group in groups for at in group)
    site = KillSite(place, zygote, provider(place), chain, scenario.constants)
    outcomes: list[Outcome] = []
    try:
        site.configure(scenario.config(site))
        while site.chain:
            outcomes += _round(site, scenario)
        site.stop()
        wrong = [*site.wrong(), *site.left_on_disk(), *site.provider.left()]
        for outcome in outcomes:
            outcome.error = outcome.error or "; ".join(wrong)
    except Exception:
        error = traceback.format_exc()
        done = len(outcomes)
        outcomes += [Outcome(at.point, scenario.name, error) for at in site.died[done:]]
        outcomes += [Outcome(at.point, scenario.name, f"not come to any more: {error}") for at in site.chain]
    finally:
        site.end()
    return outcomes


def _round(site: KillSite, scenario: Scenario) -> list[Outcome]:
    """One round, and what became of the points at which its controllers died."""
    before, births = len(site.died), site.provider.births()
    scenario.round(site)
    wrong = site.wrong()
    made = site.provider.births() - births
    if scenario.instances is not None and made.total() > scenario.instances:
        wrong.append(f"it took {made.total()} instances: {', '.join(made)}")
    died = site.died[before:]
    if not died:
        at = site.chain.popleft()
        passed = ", ".join(site.passed().split())
        site.kill()
        return [Outcome(at.point, scenario.name, f"no controller came to it {at.skip + 1} times; the last came to {passed}")]
    return [Outcome(at.point, scenario.name, "; ".join(wrong)) for at in died]


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
