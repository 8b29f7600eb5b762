"""What a provider has, against what is expected: which instance has leaked, and when that is certain enough to act on.

Note [Two scans]. A provider's list and the local state are never of the same moment, so one look proves nothing. The list is
asked for first and the state read afterwards: then an instance whose start began after the list is in the state and not in the
list, and nobody misses it, while the other order would take it for a leak. What was stopped in between, or is still listed for
a while after it has gone, is not there any more when it is looked for again. So only what two scans saw, some time apart, is
acted on.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from attrs import frozen

from latent.model import Attempt


class Standing(enum.Enum):
    """EXPECTED: its worker has it. CONDEMNED: it is being destroyed. FOREIGN: it is another controller's. PROTECTED: nobody
    expects it, and nobody but an operator touches it. SUSPECT: nobody expects it, which is still to be confirmed. LEAKED: that is
    confirmed."""

    EXPECTED = "expected"
    CONDEMNED = "condemned"
    PROTECTED = "protected"
    FOREIGN = "foreign"
    SUSPECT = "suspect"
    LEAKED = "leaked"


@frozen(kw_only=True)
class Rules:
    """``min_age``: how old an instance has to be. ``apart``: how long after the first scan the second has to be.

    ``grace``: how long another controller's instance must have been expired. Two clocks are never quite the same.
    """

    min_age: float = 60.0
    apart: float = 60.0
    grace: float = 600.0


@frozen(kw_only=True)
class Sight:
    """An instance as a provider lists it. ``first_seen``: by the first of the scans running that found it unexpected; None: by
    none before this one."""

    attempt: Attempt
    controller_id: str
    created_at: float | None = None
    protected: bool = False
    expires_at: float | None = None
    first_seen: float | None = None


@frozen(kw_only=True)
class Local:
    """What is known here. ``expected``: attempts of this controller that its workers have. ``condemned``: what is being
    destroyed, as (controller id, attempt). ``forsaken``: controllers that are gone for good, as an operator says."""

    controller_id: str
    expected: Collection[Attempt]
    condemned: Collection[tuple[str, Attempt]] = ()
    forsaken: Collection[str] = frozenset()


@frozen(kw_only=True)
class Verdict:
    """``why``: in words. ``certain_at``: of a suspect, when a scan that still sees it makes it certain."""

    standing: Standing
    why: str
    certain_at: float | None = None


def judge(sight: Sight, local: Local, rules: Rules, now: float) -> Verdict:
    """How an instance stands, seen by a scan at ``now``."""
    ours = sight.controller_id == local.controller_id
    forsaken = sight.controller_id in local.forsaken
    if ours and not forsaken and sight.attempt in local.expected:
        return Verdict(standing=Standing.EXPECTED, why="its worker has it")
    if sight.protected and (ours or forsaken or _expired(sight, rules, now)):
        return Verdict(standing=Standing.PROTECTED, why="nobody expects it, and it is protected")
    if (sight.controller_id, sight.attempt) in local.condemned:
        return Verdict(standing=Standing.CONDEMNED, why="it is being destroyed")
    if forsaken:
        why = "its controller is gone for good"
    elif ours:
        why = "no worker accounts for it"
    elif sight.expires_at is not None and _expired(sight, rules, now):
        why = f"its controller has not been heard of: it expired {now - sight.expires_at:.0f} s ago"
    else:
        return Verdict(standing=Standing.FOREIGN, why=_foreign(sight, rules, now))
    return _confirmed(sight, why, rules, now)


def _expired(sight: Sight, rules: Rules, now: float) -> bool:
    return sight.expires_at is not None and sight.expires_at + rules.grace <= now


def _foreign(sight: Sight, rules: Rules, now: float) -> str:
    if sight.expires_at is None:
        return "it belongs to another controller"
    return f"it belongs to another controller, until {sight.expires_at + rules.grace - now:.0f} s from now at least"


def _confirmed(sight: Sight, why: str, rules: Rules, now: float) -> Verdict:
    if sight.first_seen is None:
        certain_at = max(now + rules.apart, _born(sight, now) + rules.min_age)
        return Verdict(standing=Standing.SUSPECT, why=f"{why}; seen for the first time", certain_at=certain_at)
    born = _born(sight, sight.first_seen)
    if now - born < rules.min_age:
        at = max(sight.first_seen + rules.apart, born + rules.min_age)
        return Verdict(standing=Standing.SUSPECT, why=f"{why}; it is only {max(0.0, now - born):.0f} s old", certain_at=at)
    if now - sight.first_seen < rules.apart:
        at = sight.first_seen + rules.apart
        return Verdict(standing=Standing.SUSPECT, why=f"{why}; seen {now - sight.first_seen:.0f} s ago", certain_at=at)
    return Verdict(standing=Standing.LEAKED, why=why)


def _born(sight: Sight, seen: float) -> float:
    """When it was made: as its provider says, or before it was first seen, whatever the provider's clock says."""
    return seen if sight.created_at is None else min(sight.created_at, seen)
