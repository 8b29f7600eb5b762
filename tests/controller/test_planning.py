"""What goes where, and why: data in, decisions out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent.core.planning import Assign, Availability, Limits, Line, Plan, Seat, Start, plan
from latent.model import Offer, Requirements

WARM, COMING, SOON, COLD, GOING, CLOSED = (
    Availability.WARM,
    Availability.COMING,
    Availability.SOON,
    Availability.COLD,
    Availability.GOING,
    Availability.CLOSED,
)
ANYWHERE = Requirements()
NO_LIMITS = Limits()


def line(*builds: int, needs: Requirements = ANYWHERE, priority: int = 0) -> Line:
    return Line(requirements=needs, builds=[((-priority, build), build) for build in builds])


def seat(name: str, availability: Availability = COLD, *, offer: Offer | None = None, **kwargs: object) -> Seat:
    return Seat(worker=name, offer=offer or {}, availability=availability, **kwargs)  # type: ignore[arg-type]


def places(planned: Plan) -> list[tuple[str, int, str]]:
    """("assign", "start" or "replace", the build, the worker)."""
    kinds = {Assign: "assign", Start: "start"}
    return [
        ("replace" if isinstance(one, Start) and one.replace else kinds[type(one)], one.build, one.worker)
        for one in planned.decisions
    ]


@pytest.mark.parametrize(
    ("seats", "expected"),
    [
        ([seat("cold"), seat("warm", WARM)], ("assign", 1, "warm")),
        ([seat("cold"), seat("coming", COMING)], ("start", 1, "coming")),
        ([seat("going", GOING), seat("cold")], ("start", 1, "cold")),
        ([seat("going", GOING)], ("start", 1, "going")),
        ([seat("coming", COMING), seat("warm", WARM)], ("assign", 1, "warm")),
        ([seat("shut", CLOSED, reason="paused"), seat("cold")], ("start", 1, "cold")),
    ],
    ids=["warm before cold", "coming before cold", "cold before going", "going", "warm before coming", "not a closed one"],
)
def test_the_best_seat_is_taken(seats: list[Seat], expected: tuple[str, int, str]) -> None:
    """Warm instances are preferred, then those that come, then workers without one, then those whose instance must go."""
    assert places(plan([line(1)], seats, NO_LIMITS)) == [expected]


def test_higher_priority_goes_first_and_then_who_is_older() -> None:
    """One seat at a time: the order of the decisions is the order of the builds."""
    seats = [seat(f"w{n}", WARM) for n in range(3)]
    planned = plan([line(1, 4), line(2, priority=5), line(3)], seats, NO_LIMITS)
    assert [build for _, build, _ in places(planned)] == [2, 1, 3]
    assert planned.waits == ["every worker that fits is taken (3 workers: busy)", "", ""]


def test_a_worker_with_room_joins_builds_in_one_start() -> None:
    """What is begun for one build has room for more, and counts as one instance."""
    planned = plan([line(1, 2, 3)], [seat("w", free=2)], Limits(max_instances=1))
    assert places(planned) == [("start", 1, "w"), ("start", 2, "w")]


@pytest.mark.parametrize(
    ("limits", "instances", "starting", "started", "why"),
    [
        (Limits(max_instances=3), 1, 0, 2, "max_instances=3"),
        (Limits(max_instances=1), 1, 0, 0, "max_instances=1"),
        (Limits(max_starting=2), 0, 1, 1, "max_starting=2"),
        (Limits(max_instances=9, max_starting=0), 0, 0, 0, "max_starting=0"),
    ],
)
def test_limits_hold_builds_back_and_say_so(limits: Limits, instances: int, starting: int, started: int, why: str) -> None:
    """No more instances than allowed, in all and at once; the build that waits is told which limit it waits for."""
    seats = [seat(f"w{n}") for n in range(4)]
    planned = plan([line(1, 2, 3, 4)], seats, limits, instances=instances, starting=starting)
    assert len(planned.decisions) == started
    assert why in planned.waits[0]


def test_an_instance_in_the_place_of_one_that_goes_is_none_more() -> None:
    """max_instances does not keep a worker from starting again whose instance is going; max_starting does."""
    assert places(plan([line(1)], [seat("w", GOING)], Limits(max_instances=1), instances=1)) == [("start", 1, "w")]
    assert not plan([line(1)], [seat("w", GOING)], Limits(max_starting=1), instances=1, starting=1).decisions


def test_limits_do_not_hold_back_what_is_warm() -> None:
    """A build that needs no new instance is not held back."""
    seats = [seat("cold"), seat("warm", WARM)]
    assert places(plan([line(1)], seats, Limits(max_instances=1), instances=1)) == [("assign", 1, "warm")]


def test_an_idle_instance_that_will_not_do_is_replaced_only_when_nothing_else_serves() -> None:
    """Before that, any other worker is taken."""
    picky = seat("picky", WARM, incompatible=frozenset({1}), idle=True)
    assert places(plan([line(1)], [picky, seat("other")], NO_LIMITS)) == [("start", 1, "other")]
    assert places(plan([line(1)], [picky], NO_LIMITS)) == [("replace", 1, "picky")]
    assert places(plan([line(1)], [picky], Limits(max_instances=1), instances=1)) == [("replace", 1, "picky")]


def test_an_instance_that_builds_is_never_replaced() -> None:
    """A build that it won't do for waits."""
    busy = seat("w", WARM, incompatible=frozenset({1}), idle=False, free=1)
    planned = plan([line(1)], [busy], NO_LIMITS)
    assert not planned.decisions
    assert "w: busy" in planned.waits[0]


def test_nobody_is_given_an_instance_that_is_being_replaced() -> None:
    """The second build would do with the instance that goes for the first: it waits for the next plan."""
    picky = seat("w", WARM, incompatible=frozenset({1}), idle=True, free=2)
    assert places(plan([line(1, 2)], [picky], NO_LIMITS)) == [("replace", 1, "w")]


def test_who_waits_behind_a_build_that_waits_for_its_kind_of_instance_may_go() -> None:
    """Incompatible for the first build is not incompatible for the second."""
    picky = seat("w", WARM, incompatible=frozenset({1}), free=1)
    planned = plan([line(1, 2)], [picky], NO_LIMITS)
    assert places(planned) == [("assign", 2, "w")]
    assert planned.waits[0]


def test_a_picky_start_is_for_one_build() -> None:
    """What else it has room for waits until it is known whether they fit, rather than begin another instance."""
    planned = plan([line(1, 2, 3)], [seat("w", picky=True, free=3), seat("other")], NO_LIMITS)
    assert places(planned) == [("start", 1, "w")]
    assert planned.waits == ["w is just being given to another build; whether this one fits there is known in a moment"]


def test_what_is_warm_or_coming_goes_before_what_is_soon() -> None:
    """None waits for a moment who need not; one that is known not to fit does not wait either."""
    soon = seat("soon", SOON, picky=True, incompatible=frozenset({3}))
    assert places(plan([line(1)], [soon, seat("warm", WARM)], NO_LIMITS)) == [("assign", 1, "warm")]
    assert places(plan([line(1)], [soon, seat("coming", COMING)], NO_LIMITS)) == [("start", 1, "coming")]
    assert places(plan([line(3)], [soon, seat("cold")], NO_LIMITS)) == [("start", 3, "cold")]


@pytest.mark.parametrize(
    ("needs", "seats", "why"),
    [
        (ANYWHERE, [], "no worker is declared"),
        (Requirements(workers=frozenset({"x"})), [seat("w")], "none of the workers it asks for is declared: x"),
        (Requirements(labels={"worker": "x"}), [seat("w")], "none of the workers it asks for is declared: x"),
        (Requirements(labels={"os": "bsd"}), [seat("w")], "no worker fits: label os=bsd is not offered"),
        (
            Requirements(labels={"os": "bsd"}),
            [seat("w"), seat("far", CLOSED, reason="its agent is not attached", free=0)],
            "no worker fits: label os=bsd is not offered; far: its agent is not attached",
        ),
        (ANYWHERE, [seat("w", CLOSED, reason="paused", free=0)], "every worker that fits is taken (w: paused)"),
        (
            ANYWHERE,
            [
                seat("a", CLOSED, reason="paused", free=0),
                seat("b", CLOSED, reason="busy", free=0),
                seat("c", CLOSED, reason="busy"),
            ],
            "every worker that fits is taken (2 workers: busy; a: paused)",
        ),
    ],
    ids=["none", "unknown name", "unknown name as a label", "label", "not attached", "paused", "several reasons"],
)
def test_a_build_that_waits_is_told_why(needs: Requirements, seats: list[Seat], why: str) -> None:
    """Each build that got nothing has its reason."""
    assert plan([line(1, needs=needs)], seats, NO_LIMITS).waits == [why]


def test_a_build_that_names_its_worker_gets_that_one() -> None:
    """By `workers` or by the label worker=..., warm or not."""
    seats = [seat("warm", WARM), seat("named")]
    assert places(plan([line(1, needs=Requirements(workers=frozenset({"named"})))], seats, NO_LIMITS)) == [("start", 1, "named")]
    assert places(plan([line(1, needs=Requirements(labels={"worker": "named"}))], seats, NO_LIMITS)) == [("start", 1, "named")]


SEATS = st.lists(
    st.builds(
        Seat,
        worker=st.uuids().map(str),
        offer=st.sampled_from([{}, {"os": frozenset({"linux"})}, {"os": frozenset({"linux", "bsd"})}]),
        availability=st.sampled_from(list(Availability)),
        free=st.integers(0, 3),
        picky=st.booleans(),
        incompatible=st.frozensets(st.integers(1, 12), max_size=4),
        idle=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda one: one.worker,
)
NEEDS = st.sampled_from([ANYWHERE, Requirements(labels={"os": "linux"}), Requirements(labels={"os": "bsd"})])


@given(
    SEATS,
    st.lists(NEEDS, min_size=12, max_size=12),
    st.builds(Limits, max_instances=st.none() | st.integers(0, 4), max_starting=st.none() | st.integers(0, 3)),
)
def test_every_plan_can_be_carried_out(seats: list[Seat], needs: list[Requirements], limits: Limits) -> None:
    """No build twice, no seat overfull, nothing on a closed or unfitting seat, no limit exceeded, and every wait has a reason."""
    kinds = [ANYWHERE, Requirements(labels={"os": "linux"}), Requirements(labels={"os": "bsd"})]
    lines = [line(*(build for build, need in enumerate(needs, 1) if need == kind), needs=kind) for kind in kinds]
    planned = plan(lines, seats, limits)
    named = {one.worker: one for one in seats}
    taken = [one.build for one in planned.decisions]
    assert len(taken) == len(set(taken))
    for name, found in named.items():
        mine = [one for one in planned.decisions if one.worker == name]
        assert len(mine) <= found.free
        assert not mine or found.availability not in (CLOSED, SOON)
        assert len(mine) <= 1 or not found.picky or found.availability in (WARM, COMING)
        for one in mine:
            assert isinstance(one, Start) == (found.availability is not WARM or one.build in found.incompatible)
            assert all(value in found.offer.get(label, ()) for label, value in needs[one.build - 1].labels.items())
    assert _begun(planned, named, {COLD}) <= (9 if limits.max_instances is None else limits.max_instances)
    assert _begun(planned, named, {COLD, GOING, WARM}) <= (9 if limits.max_starting is None else limits.max_starting)
    for one, why in zip(lines, planned.waits, strict=True):
        assert bool(why) == any(build not in taken for _, build in one.builds)


def _begun(planned: Plan, named: dict[str, Seat], kinds: Iterable[Availability]) -> int:
    workers = {one.worker for one in planned.decisions if isinstance(one, Start)}
    return sum(named[worker].availability in kinds for worker in workers)


def test_the_worker_whose_labels_fit_best_goes_first() -> None:
    """One that offers a label's value comes before one that offers any; an instance that is up comes before both."""
    anything = {"os": frozenset("*"), "cpu": frozenset("*")}
    seats = [
        seat("any", offer=anything),
        seat("half", offer={"os": frozenset({"linux"}), "cpu": frozenset("*")}),
        seat("both", offer={"os": frozenset({"linux"}), "cpu": frozenset({"8"})}),
    ]
    needs = Requirements(labels={"os": "linux", "cpu": "8", "disk": ""})
    planned = plan([line(1, 2, 3, needs=needs)], seats, NO_LIMITS)
    assert [name for _, _, name in places(planned)] == ["both", "half", "any"]
    warm = [*seats, seat("warm", WARM, offer=anything)]
    assert places(plan([line(1, needs=needs)], warm, NO_LIMITS)) == [("assign", 1, "warm")]
