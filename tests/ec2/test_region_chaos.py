"""Whatever happens to launches, and whenever: no attempt has two instances, nothing is left, nobody waits for nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import botocore.exceptions
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from latent.errors import LatentWorkerCapacityError
from latent_ec2.instances import parse
from tests.ec2.fake_ec2 import Site, client_error

FAULTS: list[Exception | None] = [
    None,
    client_error("RequestLimitExceeded", status=503),
    client_error("InternalError", status=500),
    client_error("InsufficientInstanceCapacity", status=500),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://ec2"),
]
LOST = [FAULTS[0], FAULTS[2], FAULTS[4]]
"""What may come in place of an answer when it was done: EC2 does not refuse what it has done."""

steps = st.lists(
    st.one_of(
        st.tuples(st.just("launch"), st.integers(1, 8), st.sampled_from(["small", "large"])),
        st.tuples(st.just("cancel"), st.integers(0, 40), st.none()),
        st.tuples(st.just("pass"), st.sampled_from([0.01, 0.06, 0.3, 2.0, 20.0, 80.0]), st.none()),
        st.tuples(st.just("hold"), st.booleans(), st.none()),
        st.tuples(st.just("before"), st.sampled_from(FAULTS), st.none()),
        st.tuples(st.just("after"), st.sampled_from(LOST), st.none()),
        st.tuples(st.just("room"), st.integers(0, 6), st.none()),
    ),
    min_size=3,
    max_size=25,
)


@settings(max_examples=150)
@given(steps)
def test_launches_in_bad_weather(steps: list[tuple[str, Any, Any]]) -> None:
    """Launched, cancelled, throttled, refused, broken before and after the effect, hung, with too little room."""
    site, waiting, outcomes = Site(), dict[str, Deferred[Any]](), dict[str, Any]()
    for what, value, shape in steps:
        match what:
            case "launch":
                for _ in range(value):
                    name = f"w{len(waiting)}"
                    waiting[name] = site.region.launch(site.wish(name, shape=shape))
                    waiting[name].addBoth(lambda result, name=name: outcomes.setdefault(name, getattr(result, "value", result)))
            case "cancel" if f"w{value}" in waiting:
                waiting[f"w{value}"].cancel()
            case "pass":
                site.pass_time(value, 0.05 if value < 5 else 0.5)
            case "hold":
                site.threads.holding = value
                if not value:
                    site.threads.release()
            case "before":
                site.ec2.faults.setdefault("run_instances", []).append(value)
            case "after":
                site.ec2.after.setdefault("run_instances", []).append(value)
            case "room":
                site.ec2.room = value
    site.threads.release()
    site.pass_time(600, 0.5)
    assert set(outcomes) == set(waiting)
    documents = dict(site.kept)
    failed = [name for name, outcome in outcomes.items() if isinstance(outcome, Exception)]
    ended = [site.region.destroy(documents[f"{name}#1"]) for name in failed if f"{name}#1" in documents]
    site.pass_time(120, 0.5)
    assert all(one.called for one in ended)

    whose = Counter(str(parse(site.ec2.there[one]).attempt) for one in site.ec2.alive())
    assert whose == Counter(f"{name}#1" for name in waiting if name not in failed)
    assert len(site.ec2.there) <= len(waiting)
    for name in failed:
        error = outcomes[name]
        assert isinstance(error, LatentWorkerCapacityError | CancelledError) or "no answer" in str(error) or "EC2" in str(error)
    assert site.clock.getDelayedCalls() == []
    assert site.region.status().waiting == 0


@settings(max_examples=100)
@given(
    st.integers(1, 12),
    st.integers(0, 12),
    st.booleans(),
    st.lists(st.sampled_from([0.1, 2.0, 30.0]), max_size=4),
    st.sampled_from([0.0, 20.0]),
)
def test_crashes_at_any_moment(count: int, back: int, done: bool, pauses: list[float], unknown_for: float) -> None:
    """A process dies before or after the call, and so do its successors; some members come back, the others are destroyed."""
    site = Site()
    site.ec2.unknown_for = unknown_for
    site.threads.holding = True
    for n in range(count):
        site.region.launch(site.wish(f"w{n}"))
    site.pass_time(0.1)
    if done:
        site.threads.release()
    documents = dict(site.kept)
    waiting: dict[str, Deferred[Any]] = {}
    for pause in (*pauses, 200.0):
        site.threads.held.clear()
        site.threads.holding = False
        for call in site.clock.getDelayedCalls():
            call.cancel()
        region = site.another()
        waiting = {}
        for n, (member, _) in enumerate(documents.items()):
            latest = dict(site.kept)[member]
            if n < back:
                waiting[member] = region.relaunch(latest, site.wish(member.partition("#")[0]))
            else:
                waiting[member] = region.destroy(latest)
        site.pass_time(pause, 0.1)
    assert all(one.called for one in waiting.values())
    whose = Counter(str(parse(site.ec2.there[one]).attempt) for one in site.ec2.alive())
    assert whose == Counter(list(documents)[:back])
    assert site.clock.getDelayedCalls() == []
