"""A short day of chaos, with what every machine has."""

from __future__ import annotations

from benchmarks.chaos.day import Day
from benchmarks.chaos.schedule import Ask, Fault

FAULTS = (
    Fault(0.5, "cloud.late", 2.0, 0.1),
    Fault(2.5, "controller.kill", 0.2, 0.5),
    Fault(5.5, "process.kill", 0.0, 0.3),
    Fault(6.0, "controller.reconfig", 0.0, 0.5),
    Fault(6.5, "cloud.vanish", 0.0, 0.9),
    Fault(7.5, "controller.stop", 0.0, 0.5),
)


def test_a_short_day() -> None:
    """The controller is killed and stopped, an agent is killed, an instance vanishes: the ledger adds up."""
    asks = tuple(Ask(0.8 * n, ("process", "cloud")[n % 2], 1.5, 1 if n == 3 else 0) for n in range(8))
    told: list[str] = []
    day = Day(1, 8.0, without=("docker", "ec2"), say=told.append, faults=FAULTS, asks=asks)
    ledger = day.live()
    print("\n".join(told))
    assert ledger["disagreements"] == []
    assert ledger["builds"]["ended"] == {"success": 7, "failure": 1}
    assert (ledger["builds"]["lost"], ledger["builds"]["doubled"], ledger["leaked"]) == (0, 0, 0)
    assert ledger["controllers"]["killed"] == 1
    assert ledger["left_out"] == {"docker": "not wanted", "ec2": "not wanted"}
    assert {part["leaked"] for part in ledger["instances"].values()} == {0}
