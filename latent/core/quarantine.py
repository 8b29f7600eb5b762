"""How long a worker whose infrastructure failed is left alone, and whether an operator has paused it."""

from __future__ import annotations

from attrs import evolve, frozen

FIRST_STEP = 10.0
LAST_STEP = 3600.0
"""Seconds of the first back-off and the longest; each failure doubles the step."""


@frozen(kw_only=True)
class Quarantine:
    """``step``: how long the next back-off lasts, in seconds. ``until``: POSIX seconds, 0 when there is none.

    ``reason``: the failure that led here, kept until a good build so that it can be shown.
    """

    step: float = FIRST_STEP
    until: float = 0.0
    reason: str = ""
    paused: bool = False


def failed(quarantine: Quarantine, reason: str, now: float, jitter: float = 0.0) -> Quarantine:
    """One more failure. A worker that already backs off is not held longer for it.

    ``jitter`` (-1..1) moves the end by up to a tenth of the step, so that workers that failed together do not return together.
    """
    if now < quarantine.until:
        return quarantine
    return evolve(
        quarantine,
        step=min(quarantine.step * 2, LAST_STEP),
        until=now + quarantine.step * (1 + jitter / 10),
        reason=reason,
    )


def good_build(quarantine: Quarantine) -> Quarantine:
    """A build ended well: the next failure starts from the first step again."""
    return Quarantine(paused=quarantine.paused)


def pause(quarantine: Quarantine) -> Quarantine:
    return evolve(quarantine, paused=True)


def unpause(quarantine: Quarantine) -> Quarantine:
    """An operator takes the worker back: it may be used at once, and the next failure still counts as the next step."""
    return evolve(quarantine, paused=False, until=0.0)


def why_closed(quarantine: Quarantine, now: float) -> str:
    """Why the worker takes no new build; empty if it does."""
    if quarantine.paused:
        return "paused"
    if now < quarantine.until:
        return f"backs off for {quarantine.until - now:.0f} s more: {quarantine.reason}"
    return ""
