"""c["protocols"] for Buildbot's agents: what it takes, and how it says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latent.config import protocols
from latent.config.diff import RestartNeeded, diff
from latent.config.settings import Buildbot
from tests.config.conftest import Load, mistakes

PLAIN = 'c["workers"] = [Worker("w", "secret")]\n'


def test_what_is_served(loaded: Load) -> None:
    """Those protocols that are named, with their defaults; a None is none."""
    assert loaded(PLAIN).buildbot == {}
    assert loaded(PLAIN + 'c["protocols"] = {"pb": None, "msgpack_experimental_v7": {}}').buildbot == {
        "msgpack_experimental_v7": Buildbot()
    }
    text = '{"pb": {"port": 9989, "interface": "::1", "advertise": "h:1", "keepalive_interval": 5, "tls": None}}'
    assert loaded(f'{PLAIN}c["protocols"] = {text}').buildbot == {
        "pb": Buildbot(port=9989, interface="::1", advertise="h:1", keepalive_interval=5.0)
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("9989", Buildbot(port=9989)),
        ("tcp:9989", Buildbot(port=9989)),
        ("tcp:9989:interface=10.0.0.1", Buildbot(port=9989, interface="10.0.0.1")),
        (r"tcp6:9989:interface=\\:\\:1", Buildbot(port=9989, interface="::1")),
    ],
)
def test_ports_as_buildbot_takes_them(loaded: Load, said: str, expected: Buildbot) -> None:
    """Strings that say port and interface; what is beside them counts more."""
    assert loaded(f'{PLAIN}c["protocols"] = {{"pb": {{"port": "{said}"}}}}').buildbot == {"pb": expected}
    both = loaded(f'{PLAIN}c["protocols"] = {{"pb": {{"port": "{said}", "interface": "127.0.0.2"}}}}').buildbot["pb"]
    assert (both.port, both.interface) == (9989, "127.0.0.2")


WRONG = {
    "key": ('{"pb": {"prot": 1}}', "['pb']['prot'] is no setting", "did you mean 'port'?"),
    "protocol": ('{"bp": {}}', "c['protocols']['bp'] is no setting", "did you mean 'pb'?"),
    "no dict": ('{"pb": 9989}', "is an int, 9989, not a dict", "write c['protocols']['pb'] = {"),
    "port": ('{"pb": {"port": 70000}}', "is 70000, which is no port", "0 to 65535"),
    "port text": ('{"pb": {"port": "x"}}', "is 'x'", "write a number, 9989 for example"),
    "port options": ('{"pb": {"port": "tcp:1:backlog=5"}}', "is 'tcp:1:backlog=5'", "put the rest into 'interface'"),
    "port range": ('{"pb": {"port": "tcp:70000"}}', "is 70000, which is no port", "0 to 65535"),
    "port interface": ('{"pb": {"port": "tcp:1:interface=eth0"}}', "'eth0', which is no IP address", "127.0.0.1"),
    "all networks": ('{"pb": {"port": 1, "interface": "0.0.0.0"}}', "can't be told where to come", "'advertise'"),
    "advertise": ('{"pb": {"advertise": "h:1"}}', "listens on any free port", "add 'port'"),
    "same port": ('{"pb": {"port": 7}, "msgpack_experimental_v7": {"port": 7}}', "both have port 7", "give one of them another"),
    "peer's port": ('{"peer": {"port": 7}, "pb": {"port": 7}}', "both have port 7", "give one of them another"),
    "slow": ('{"pb": {"keepalive_interval": 31}}', "is silent for 60 s is lost", "write at most 30"),
    "no seconds": ('{"pb": {"keepalive_interval": 0}}', "is 0", "write"),
    "tls no dict": ('{"pb": {"tls": "x"}}', "['tls'] is a str, 'x', not a dict", "'certificate'"),
    "tls key": ('{"pb": {"tls": {"cert": "x"}}}', "['tls']['cert'] is no setting", "did you mean 'certificate'?"),
    "tls lacks": ('{"pb": {"tls": {}}}', "lacks 'certificate'", "write {'certificate'"),
    "tls gone": ('{"pb": {"tls": {"certificate": "no.pem", "key": "no.key"}}}', "no.pem can't be read", "path of a PEM file"),
    "tls no path": ('{"pb": {"tls": {"certificate": 1, "key": 2}}}', "is an int, 1, not a path", "path of a PEM file"),
}


@pytest.mark.parametrize(("text", "what", "remedy"), WRONG.values(), ids=WRONG)
def test_mistakes(master_cfg: Callable[[str], Path], text: str, what: str, remedy: str) -> None:
    """Each is told with its line and a remedy."""
    found = mistakes(master_cfg(f'{PLAIN}c["protocols"] = {text}'))
    assert [line for line, said, told in found if what in said and remedy in told] == [3], found


def test_what_is_not_installed(master_cfg: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that has it is named; PB needs none."""
    monkeypatch.setattr(protocols, "find_spec", lambda name: None)
    (_, what, remedy), *others = mistakes(master_cfg(PLAIN + 'c["protocols"] = {"pb": {}, "msgpack_experimental_v7": {}}'))
    assert others == []
    assert what == "c['protocols']['msgpack_experimental_v7'] needs autobahn, msgpack, which are not installed"
    assert remedy == "pip install 'latent[buildbot]'"


def test_changes_need_a_restart(loaded: Load) -> None:
    """Ports are taken once."""
    old = loaded(PLAIN)
    new = loaded(PLAIN + 'c["protocols"] = {"pb": {"port": 9989, "keepalive_interval": 5}}')
    changes = diff(old, new)
    assert RestartNeeded("protocols.pb.port", None, 9989) in changes
    assert all(isinstance(change, RestartNeeded) for change in changes)
    newer = loaded(PLAIN + 'c["protocols"] = {"pb": {"port": 9989, "keepalive_interval": 6}}')
    assert diff(new, newer) == [RestartNeeded("protocols.pb.keepalive_interval", 5.0, 6.0)]
    assert diff(newer, newer) == []
