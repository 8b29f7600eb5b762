"""What a reload finds different, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from latent.config.diff import (
    BuilderAdded,
    BuilderChanged,
    BuilderRemoved,
    Change,
    RestartNeeded,
    SettingChanged,
    WorkerAdded,
    WorkerChanged,
    WorkerRemoved,
    diff,
)
from tests.config.conftest import Load

Between = Callable[[str, str], list[Change]]

BASE = """
from latent.worker.properties import Interpolate, Property, renderer

def image(size):
    @renderer
    def chosen(props):
        return f"{props['os']}-{size}"
    return chosen

class Own(Cloud):
    def check_instance(self):
        return (True, "")

c["workers"] = [
    Worker("plain", "secret", max_builds=2),
    Own("own", properties={"a": 1}),
    Cloud("pool-{n}", count=2, labels={"os": "linux"}),
]
c["builders"] = [
    Builder("one", [Step(["run", Property("x")], env={"I": Interpolate("%(prop:x)s"), "S": image("big")}), "make"]),
    Builder("two", ["true"], labels={"os": "linux"}),
]
c["limits"] = {"max_instances": 5}
"""


@pytest.fixture
def changes(loaded: Load) -> Between:
    def between(old: str, new: str) -> list[Change]:
        return diff(loaded(old), loaded(new))

    return between


def test_nothing_changed(changes: Between) -> None:
    """The same file read twice is no change, though each of its functions, classes and workers is another object."""
    assert changes(BASE, BASE) == []


def test_lines_that_moved(changes: Between) -> None:
    """Blank lines and comments change nothing."""
    assert changes(BASE, BASE.replace("\ndef image", "\n\n# how big\n\n\ndef image")) == []


def test_another_order(changes: Between) -> None:
    """Workers and builders in another order are the same."""
    first = '    Worker("plain", "secret", max_builds=2),\n'
    second = '    Own("own", properties={"a": 1}),\n'
    assert changes(BASE, BASE.replace(first + second, second + first)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"secret"', '"other"', [WorkerChanged("plain")]),
        ("max_builds=2", "max_builds=3", [WorkerChanged("plain")]),
        ('{"a": 1}', '{"a": 2}', [WorkerChanged("own")]),
        ('return (True, "")', 'return (False, "")', [WorkerChanged("own", replaced=True)]),
        ('Own("own"', 'Cloud("own"', [WorkerChanged("own", replaced=True)]),
        ("count=2", "count=3", [WorkerAdded("pool-3")]),
        ("count=2", "count=1", [WorkerRemoved("pool-2")]),
        (', labels={"os": "linux"}),\n]\nc["builders', ', labels={"os": "linux"}, max_builds=2),\n]\nc["builders',
         [WorkerChanged("pool-1"), WorkerChanged("pool-2")]),
        ('"plain"', '"renamed"', [WorkerRemoved("plain"), WorkerAdded("renamed")]),
        ('"make"', '"make all"', [BuilderChanged("one")]),
        ('Property("x")', 'Property("y")', [BuilderChanged("one")]),
        ('image("big")', 'image("small")', [BuilderChanged("one")]),
        ("{props['os']}-{size}", "{props['arch']}-{size}", [BuilderChanged("one")]),
        ('Builder("two"', 'Builder("three"', [BuilderRemoved("two"), BuilderAdded("three")]),
        ('"max_instances": 5', '"max_instances": 6', [SettingChanged("limits.max_instances", 5, 6)]),
        ('c["limits"] = {"max_instances": 5}', "", [SettingChanged("limits.max_instances", 5, None)]),
        ("\nc[", '\nc["title"] = "Ours"\nc[', [SettingChanged("title", "latent", "Ours")]),
    ],
)  # fmt: skip
def test_only_what_changed(changes: Between, old: str, new: str, expected: list[Change]) -> None:
    """A change of one thing is told as that thing and nothing else."""
    assert old in BASE
    assert changes(BASE, BASE.replace(old, new)) == expected


def test_what_needs_a_restart(changes: Between) -> None:
    """Addresses and the database are told apart from what can be changed while the controller runs."""
    more = """
c["protocols"] = {"peer": {"port": 9989}}
c["www"] = {"port": 8010}
"""
    assert changes(BASE, BASE + more) == [
        RestartNeeded("protocols.peer.port", 0, 9989),
        RestartNeeded("www.port", None, 8010),
        RestartNeeded("www.interface", None, "127.0.0.1"),
    ]


def test_passwords_are_not_told(changes: Between) -> None:
    """A change is told without the passwords that are in it."""

    def with_url(url: str) -> str:
        return BASE + f"c['db'] = {{'url': {url!r}}}\n"

    found = changes(with_url("postgresql://u:hush@h/d?password=hush"), with_url("postgresql://u:shush@h/d"))
    assert [change.key for change in found] == ["db.url"]
    told = " ".join(map(str, [*found, *changes(BASE, BASE.replace('"secret"', '"hush"'))]))
    assert "hush" not in told
    assert "secret" not in told


def test_changes_in_words() -> None:
    """Each change is one line."""
    assert str(WorkerChanged("w1", replaced=True)) == "worker w1: replaced, its class is another"
    assert str(SettingChanged("limits.max_starting", None, 3)) == "limits.max_starting: None -> 3"
    assert str(RestartNeeded("www.port", None, 80)) == "www.port: None -> 80, at the next start of the controller"
