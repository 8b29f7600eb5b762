"""What follows when a task's build did not succeed. Pure."""

from __future__ import annotations

import math

from attrs import frozen

from latent.swarm.statuses import TaskStatus
from latent.swarm.values import MOST_AMOUNT, ArrayDefinition, Resources, Trouble

_DIGITS = 6
"""Of an amount, after the point: 10 x (1 + 0.1) is 11 and not a bit more, which rounded up would be 12."""


@frozen
class Verdict:
    """REGISTERING: again as it was. ADJUSTING_RESOURCES: again, first in line, with these. ERROR_FATAL: not again."""

    status: TaskStatus
    resources: Resources
    level: int


def judge(
    trouble: Trouble | None, attempts: int, max_attempts: int, resources: Resources, level: int, array: ArrayDefinition
) -> Verdict:
    """``attempts``: how often the task was queued, the try that failed among them. ``trouble`` None: not known."""
    if attempts >= max_attempts or (trouble is not None and trouble.is_fatal):
        return Verdict(TaskStatus.ERROR_FATAL, resources, level)
    if trouble is None or not trouble.wants_resources:
        return Verdict(TaskStatus.REGISTERING, resources, level)
    more = grown(resources, array)
    if more == resources and level < len(array.fallbacks):
        level += 1
    return Verdict(TaskStatus.ADJUSTING_RESOURCES, more, level)


def grown(resources: Resources, array: ArrayDefinition) -> Resources:
    """Each amount that has a scale, larger by it, and at most what the array allows; whole numbers stay whole.

    An amount that is above its most already stays as it is.
    """
    return {name: _grown(amount, array.scale.get(name, 0), array.most.get(name)) for name, amount in resources.items()}


def _grown(amount: float, scale: float, most: float | None) -> float:
    if not scale:
        return amount
    more = amount * (1 + scale)
    if isinstance(amount, int):
        more = math.ceil(round(more, _DIGITS))
    return max(amount, min(more, MOST_AMOUNT if most is None else most))
