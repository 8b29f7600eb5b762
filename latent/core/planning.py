"""Which queued build goes to which worker, and why. Data in, decisions out.

An instance that is up and free is preferred, then one that is coming up and has room, then a worker without an instance, then one
whose instance has to go first. Among equals the one whose labels fit best goes first (`latent.core.matching.score`). An idle
instance that won't do for the build is replaced only when nothing else can serve it. And where instances differ with the build, a
build waits a moment rather than share one of which nobody knows yet whether it will do.

Builds that require the same come as one `Line`, and workers that offer the same are kept in one `_Group`, so that each pair is
matched once however many there are of each; a line of which one build has to wait is not looked at further. The cost is linear
in workers, lines and decisions, not in the builds that wait.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field, frozen

from latent.core.matching import ONLY_BOTS, ONLY_PAYLOADS, is_bot, label_mismatch, score
from latent.model import Offer, Requirements

WORKER = "worker"
"""The label by which a build asks for one worker. `Seat.offer` is without it, else no two workers would offer the same."""


class Availability(enum.Enum):
    """What a worker can do for a new build now.

    GOING: there is an instance, but it has to go before the next can start. SOON: it is just being given to another build, and
    has room; whether it will do for more is known in a moment.
    """

    WARM = "warm"
    COMING = "coming"
    SOON = "soon"
    COLD = "cold"
    GOING = "going"
    CLOSED = "closed"


Order = tuple[int, int]
"""Who goes first: the smaller. (minus the priority, the build's id); a build that comes back is older than those that wait."""


@frozen(kw_only=True)
class Line:
    """The queued builds that require the same, as (order, build) in order. ``payload``: that they are payloads, for bots."""

    requirements: Requirements
    builds: Sequence[tuple[Order, int]]
    payload: bool = False


@frozen(kw_only=True)
class Seat:
    """A worker, as the planner sees it.

    ``free``: how many more builds it takes. ``reason``: why it is CLOSED. ``picky``: its instances differ with the build they are
    made for; ``incompatible``: the builds that the one which is up won't do for; ``idle``: that one has no build and may be
    replaced.
    """

    worker: str
    offer: Offer
    availability: Availability
    free: int = 1
    reason: str = ""
    picky: bool = False
    incompatible: frozenset[int] = frozenset()
    idle: bool = False


@frozen(kw_only=True)
class Limits:
    """How many instances there may be, in all and starting at once. None: as many as there are workers."""

    max_instances: int | None = None
    max_starting: int | None = None


@frozen
class Assign:
    """The worker's instance takes the build now."""

    build: int
    worker: str
    why: str


@frozen
class Start:
    """The worker is substantiated for the build; ``replace``: its idle instance goes first."""

    build: int
    worker: str
    why: str
    replace: bool = False


Decision = Assign | Start


@frozen
class Plan:
    """``waits``: for each line, in the order given, why its first build that got nothing waits; empty if all got something."""

    decisions: list[Decision]
    waits: list[str]


@define
class _Group:
    """The workers that offer the same, by availability. Each list is used from its end; full seats are dropped on the way."""

    offer: Offer
    seats: dict[Availability, list[Seat]] = field(factory=lambda: {a: [] for a in Availability})
    reasons: dict[str, list[str]] = field(factory=dict)

    def add(self, seat: Seat) -> None:
        self.seats[seat.availability].append(seat)
        reason = seat.reason if seat.availability is Availability.CLOSED else "busy"
        self.reasons.setdefault(reason, []).append(seat.worker)

    def begin(self, seat: Seat) -> None:
        """What the seat has room for beyond its first build joins the same start, if all its instances are alike."""
        cold = self.seats[seat.availability]
        at = next(i for i in range(len(cold) - 1, -1, -1) if cold[i] is seat)
        del cold[at]
        self.seats[Availability.SOON if seat.picky else Availability.COMING].append(seat)

    def take(self, availability: Availability, build: int, free: dict[str, int]) -> Seat | None:
        seats = self.seats[availability]
        while seats and free[seats[-1].worker] <= 0:
            seats.pop()
        for seat in reversed(seats):
            if free[seat.worker] > 0 and build not in seat.incompatible:
                return seat
        return None


@define
class _Candidates:
    """The groups that can serve a line; ``mismatch`` says why there are none."""

    groups: list[_Group]
    mismatch: str


def plan(lines: Sequence[Line], seats: Sequence[Seat], limits: Limits, *, instances: int = 0, starting: int = 0) -> Plan:
    """Decide for every line. ``instances``: how many there are now, ``starting``: how many of them are not attached yet."""
    free = {seat.worker: seat.free for seat in seats}
    groups = _grouped(seats)
    named = {seat.worker: seat for seat in seats}
    picky = [seat for seat in seats if seat.incompatible]
    idle = [seat for seat in picky if seat.idle and seat.availability is Availability.WARM and seat.free]
    candidates = [_candidates(line, groups, named) for line in lines]
    begun: set[str] = set()
    decisions: list[Decision] = []
    waits = [""] * len(lines)
    heads = [(line.builds[0], number, 0) for number, line in enumerate(lines) if line.builds]
    heapq.heapify(heads)
    while heads:
        (_, build), number, at = heapq.heappop(heads)
        blocked = _blocked(limits, instances, starting)
        decision = _place(build, candidates[number], free, idle, blocked)
        if isinstance(decision, str):
            waits[number] = waits[number] or decision
            if not picky:
                continue  # what one of them waits for, all behind it wait for
        else:
            decisions.append(decision)
            free[decision.worker] -= 1
            if isinstance(decision, Start) and decision.worker not in begun:
                begun.add(decision.worker)
                availability = named[decision.worker].availability
                instances += availability is Availability.COLD
                starting += availability is not Availability.COMING
                if decision.replace:
                    free[decision.worker] = 0  # nobody gets what is going; the next one is there to be joined in the next plan
        if at + 1 < len(lines[number].builds):
            heapq.heappush(heads, (lines[number].builds[at + 1], number, at + 1))
    return Plan(decisions, waits)


def _place(
    build: int, kind: _Candidates, free: dict[str, int], idle: Iterable[Seat], blocked: Mapping[Availability, str]
) -> Decision | str:
    """Where the build goes, or why it waits. ``blocked``: the limit that forbids more of them."""
    if not kind.groups:
        return kind.mismatch
    for availability in (Availability.WARM, Availability.COMING, Availability.SOON, Availability.COLD, Availability.GOING):
        if blocked.get(availability):
            continue
        for group in kind.groups:
            seat = group.take(availability, build, free)
            if seat is None:
                continue
            if availability is Availability.WARM:
                return Assign(build, seat.worker, "its instance is up and free")
            if availability is Availability.COMING:
                return Start(build, seat.worker, "its instance is coming up and has room")
            if availability is Availability.SOON:
                return f"{seat.worker} is just being given to another build; whether this one fits there is known in a moment"
            group.begin(seat)
            return Start(build, seat.worker, "no instance that fits is free")
    for seat in () if blocked.get(Availability.GOING) else idle:
        fits = any(group.offer == seat.offer and seat in group.seats[seat.availability] for group in kind.groups)
        if fits and build in seat.incompatible and free[seat.worker] == seat.free:
            why = "its idle instance won't do for this build, and nothing else can serve it"
            return Start(build, seat.worker, why, replace=True)
    return blocked.get(Availability.COLD) or _why_wait(kind)


def _grouped(seats: Sequence[Seat]) -> list[_Group]:
    groups: dict[frozenset[tuple[str, frozenset[str]]], _Group] = {}
    same: dict[int, _Group] = {}  # by identity, which is faster, where the seats share what they offer
    for seat in reversed(seats):
        group = same.get(id(seat.offer))
        if group is None:
            key = frozenset(seat.offer.items())
            group = groups.get(key)
            if group is None:
                group = groups[key] = _Group(seat.offer)
            same[id(seat.offer)] = group
        group.add(seat)
    return list(groups.values())


def _candidates(line: Line, groups: list[_Group], named: dict[str, Seat]) -> _Candidates:
    needs = line.requirements
    labels = dict(needs.labels)
    names = needs.workers
    if only := labels.pop(WORKER, ""):
        names = frozenset({only}) & names if names is not None else frozenset({only})
    if names is not None:
        known = [named[name] for name in sorted(names) if name in named]
        if not known:
            return _Candidates([], f"none of the workers it asks for is declared: {', '.join(sorted(names)) or only}")
        groups = _grouped(known)
    if not groups:
        return _Candidates([], "no worker is declared")
    fitting, mismatch = [], ""
    for group in groups:
        why = label_mismatch(labels, group.offer, payload=line.payload)
        if not why:
            fitting.append(group)
        if not mismatch or mismatch in (ONLY_BOTS, ONLY_PAYLOADS):
            mismatch = why or mismatch  # what is wrong with a worker of the right kind says more
    fitting.sort(key=lambda group: -score(labels, group.offer))
    return _Candidates(fitting, "" if fitting else f"no worker fits: {mismatch}{_may_offer_more(line, groups)}")


def _may_offer_more(line: Line, groups: list[_Group]) -> str:
    """A worker of the right kind that is closed: its agent, once it is there, may offer what no worker does now."""
    for group in groups:
        if line.payload == is_bot(group.offer) and (closed := group.seats[Availability.CLOSED]):
            return f"; {closed[-1].worker}: {closed[-1].reason}"
    return ""


def _blocked(limits: Limits, instances: int, starting: int) -> Mapping[Availability, str]:
    """Why no more of them may be started. One that takes the place of an instance that goes does not add to those that are up."""
    if limits.max_starting is not None and starting >= limits.max_starting:
        why = f"as many instances as the limit max_starting={limits.max_starting} allows are starting"
        return {Availability.COLD: why, Availability.GOING: why}
    if limits.max_instances is not None and instances >= limits.max_instances:
        return {Availability.COLD: f"as many instances as the limit max_instances={limits.max_instances} allows are up"}
    return {}


def _why_wait(kind: _Candidates) -> str:
    """What keeps the workers that would fit, the commonest reason first."""
    counts: dict[str, list[str]] = {}
    for group in kind.groups:
        for reason, workers in group.reasons.items():
            counts.setdefault(reason, []).extend(workers)
    parts = sorted(counts.items(), key=lambda item: -len(item[1]))
    shown = [f"{workers[0] if len(workers) == 1 else f'{len(workers)} workers'}: {reason}" for reason, workers in parts[:3]]
    return "every worker that fits is taken (" + "; ".join(shown) + ")"
