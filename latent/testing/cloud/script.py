"""What is to go wrong, and when: decided by the order in which it was asked for and by the seed, by nothing else.

Note [Chance]. Whether a fault with a chance strikes depends on the seed, on the fault, on what is called, on whose behalf, and on
how often that was called before; not on what others do meanwhile. So it strikes the same calls again when a test is run again
with the same seed, also where processes race.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from attrs import define, field, frozen

from latent.testing.cloud.values import CALLS, FATES, REFUSALS

KINDS = ("fail", "hang", "late", "twice", "ignore")


@frozen(kw_only=True)
class Fault:
    """``call``: one of `CALLS`, or "*". ``times``: how often it strikes, None for always; after ``skip`` calls that it lets pass.

    ``done``: whether the call is carried out although nobody is told so in time. ``seconds``: how late. ``error``: one of
    `REFUSALS`. ``worker``: the only one whose calls it strikes; "" for all.
    """

    kind: str
    call: str = "*"
    times: int | None = 1
    skip: int = 0
    chance: float = 1.0
    done: bool = False
    seconds: float = 0.0
    error: str = "internal"
    message: str = ""
    worker: str = ""

    def __attrs_post_init__(self) -> None:
        _one_of("the call", self.call, ("*", *CALLS))
        _one_of("the error", self.error, REFUSALS)
        _one_of("the kind of fault", self.kind, KINDS)
        _a_chance(self.chance)


def _a_chance(chance: float) -> None:
    if not 0 <= chance <= 1:
        raise ValueError(f"chance is {chance!r}; it is a number from 0 to 1")


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} is {value!r}; the cloud knows {', '.join(known)}")


@frozen(kw_only=True)
class Doom:
    """What happens to instances by themselves. ``fate``: one of `FATES`. ``within``: seconds of running after which it has, at
    the latest. ``chance``, ``times``, ``worker``: as of a `Fault`, for each instance.
    """

    fate: str
    within: float
    times: int | None = 1
    chance: float = 1.0
    worker: str = ""

    def __attrs_post_init__(self) -> None:
        _one_of("the fate", self.fate, FATES)
        _a_chance(self.chance)


@define
class _Armed:
    fault: Fault
    number: int
    passed: int = 0
    struck: int = 0


@define
class _Fated:
    doom: Doom
    number: int
    struck: int = 0


@define
class Script:
    """The faults that are to come. ``seed`` decides all that is left to chance."""

    seed: int
    _armed: list[_Armed] = field(factory=list)
    _fated: list[_Fated] = field(factory=list)
    _added: int = 0
    _counts: Counter[tuple[str, str]] = field(factory=Counter)

    def add(self, fault: Fault) -> None:
        self._added += 1
        self._armed.append(_Armed(fault, self._added))

    def add_doom(self, doom: Doom) -> None:
        self._added += 1
        self._fated.append(_Fated(doom, self._added))

    def heal(self) -> None:
        self._armed.clear()
        self._fated.clear()

    def called(self, call: str, subject: str) -> int:
        """Count a call; how many of its kind there were on the subject's behalf, this one included."""
        self._counts[call, subject] += 1
        return self._counts[call, subject]

    def take(self, call: str, subject: str, worker: str) -> Fault | None:
        """What befalls the call that was counted last: the first fault that fits, or nothing."""
        for armed in self._armed:
            fault = armed.fault
            if fault.call not in ("*", call) or fault.worker not in ("", worker):
                continue
            armed.passed += 1
            if armed.passed <= fault.skip or (fault.times is not None and armed.struck >= fault.times):
                continue
            if fault.chance < 1 and self.chance(f"fault {armed.number}", call, subject) >= fault.chance:
                continue
            armed.struck += 1
            return fault
        return None

    def chance(self, what: str, call: str, subject: str) -> float:
        """A number from 0 to 1, always the same (Note [Chance])."""
        return Random(f"{self.seed}/{what}/{call}/{subject}/{self._counts[call, subject]}").random()  # noqa: S311 -- no secret

    def fate(self, subject: str, worker: str) -> tuple[str, float] | None:
        """What is to happen to an instance that begins to run, and after how many seconds; None: nothing."""
        for fated in self._fated:
            doom = fated.doom
            if doom.worker not in ("", worker) or (doom.times is not None and fated.struck >= doom.times):
                continue
            if doom.chance < 1 and self.chance(f"doom {fated.number}", "boot", subject) >= doom.chance:
                continue
            fated.struck += 1
            return doom.fate, doom.within * self.chance(f"hour {fated.number}", "boot", subject)
        return None
