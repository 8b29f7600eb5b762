"""What a right master.cfg becomes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latent.config.loader import load
from latent.config.settings import Config, Limits, PeerAgents, Www
from latent.errors import ConfigError
from tests.config.conftest import Load

WORKERS = "c['workers'] = [Worker('w1', 'x')]\n"


def test_defaults(loaded: Load, tmp_path: Path) -> None:
    """Workers are all that a file must declare; the rest has defaults that need no set-up."""
    config = loaded(WORKERS)
    assert list(config.workers) == ["w1"]
    assert config == Config(
        path=tmp_path / "master.cfg",
        workers=config.workers,
        builders={},
        peer=PeerAgents(port=0, interface="127.0.0.1", advertise=None),
        db_url=f"sqlite:///{tmp_path}/state/latent.sqlite",
        www=None,
        limits=Limits(max_instances=None, max_starting=None, session_timeout=60.0, lease_seconds=60.0),
        title="latent",
        journal_days=30.0,
    )


def test_everything(loaded: Load) -> None:
    """All settings arrive."""
    config = loaded(
        WORKERS
        + """
c["builders"] = [Builder("b", ["true"])]
peer = {"port": 9989, "interface": "0.0.0.0", "advertise": "[::1]:9989", "token": "sixteen-letters!", "version": 14}
c["protocols"] = {"peer": peer}
c["db"] = {"url": "postgresql+psycopg://u:p@h/d"}
c["www"] = {"port": 8010, "interface": "::"}
c["limits"] = {"max_instances": 5, "max_starting": None, "session_timeout": 30, "lease_seconds": 90.5}
c["title"] = "Ours"
c["journal_days"] = None
"""
    )
    assert list(config.builders) == ["b"]
    assert config.peer == PeerAgents(port=9989, interface="0.0.0.0", advertise="[::1]:9989", token="sixteen-letters!", version=14)
    assert "letters" not in repr(config)
    assert config.db_url == "postgresql+psycopg://u:p@h/d"
    assert config.www == Www(port=8010, interface="::")
    assert config.limits == Limits(max_instances=5, session_timeout=30.0, lease_seconds=90.5)
    assert (config.title, config.journal_days) == ("Ours", None)


@pytest.mark.parametrize(
    "start",
    ["", "c = {}\n", "c = BuildmasterConfig = {}\n", "BuildmasterConfig = c = dict()\n"],
)
def test_ways_to_begin(loaded: Load, start: str) -> None:
    """`c` is there; the file may also make it, in Buildbot's manner or not."""
    assert list(loaded(start + WORKERS).workers) == ["w1"]


def test_only_the_old_name(loaded: Load) -> None:
    """A file may fill BuildmasterConfig and never mention `c`."""
    assert list(loaded("BuildmasterConfig = {'workers': [Worker('w1', 'x')]}\n").workers) == ["w1"]


def test_pools_are_expanded(loaded: Load) -> None:
    """One declaration of a pool is as many workers as it counts, in its order."""
    config = loaded(
        """
c["workers"] = [Cloud("linux-{n}", count=3), Worker("mac", "x")]
"""
    )
    assert list(config.workers) == ["linux-1", "linux-2", "linux-3", "mac"]


def test_a_pool_and_a_worker_of_the_same_name(loaded: Load) -> None:
    """Names are unique after pools are expanded."""
    with pytest.raises(ConfigError, match=r"master\.cfg:3: there are two workers called 'n-2', the other one on line 2; rename"):
        loaded(
            """
c["workers"] = [Cloud("n-{n}", count=2),
                Worker("n-2", "x")]
"""
        )


def test_labels_of_agents(loaded: Load) -> None:
    """The agent of a plain worker may bring labels of its own, so a builder that wants some is not refused for it."""
    config = loaded(WORKERS + "c['builders'] = [Builder('b', ['true'], labels={'os': 'plan9'})]\n")
    assert "b" in config.builders


def test_basedir_and_file(loaded: Load, tmp_path: Path) -> None:
    """The file knows the directory that it is in."""
    config = loaded(WORKERS + "c['title'] = basedir + '|' + __file__\n")
    assert config.title == f"{tmp_path}|{tmp_path}/master.cfg"


def test_relative_path(loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file named from the working directory is the same configuration."""
    loaded(WORKERS)
    monkeypatch.chdir(tmp_path)
    assert load(Path("master.cfg")).path == tmp_path / "master.cfg"


def test_modules_beside_it_are_read_anew(master_cfg: Callable[[str], Path]) -> None:
    """A module beside master.cfg can be imported; the next load sees it as it is then, and the process's modules stay clean."""
    path = master_cfg(WORKERS + "import of_the_test\nc['title'] = of_the_test.TITLE\n")
    module = path.parent / "of_the_test.py"
    before = list(sys.path)
    module.write_text("TITLE = 'one'\n")
    assert load(path).title == "one"
    module.write_text("TITLE = 'another'\n")
    assert load(path).title == "another"
    assert sys.path == before
    assert "of_the_test" not in sys.modules


def test_futures(tmp_path: Path) -> None:
    """A `from __future__` import holds for the whole file, though its statements are run one by one."""
    path = tmp_path / "master.cfg"
    path.write_text(
        "from __future__ import annotations\n"
        "from latent.worker.base import Worker\n"
        "def f(x: undefined_on_purpose) -> str: return 'fine'\n"
        "c['title'] = f(1)\n" + WORKERS
    )
    assert load(path).title == "fine"


def test_each_thing_is_evaluated_once(loaded: Load) -> None:
    """However elements are watched over, each is evaluated once and in its order, and scopes are Python's."""
    config = loaded(
        """
seen = []
def see(x):
    seen.append(x)
    return x
c["limits"] = {"max_instances": see(1), "max_starting": see(2)}
c["workers"] = [Worker(see("a"), "x"), *[Worker(see(n), "x") for n in ("b", "c")], (last := Worker(see("d"), "x"))]
def local():
    here = 5
    return sorted(name for name in locals() if name == "here")
class Plugin(Cloud):
    __hidden = [see("e")]
    def hidden(self): return self.__hidden, super().offer()
assert local() == ["here"]
assert last.name == "d"
c["title"] = " ".join(map(str, seen))
"""
    )
    assert config.title == "1 2 a b c d e"
    assert list(config.workers) == ["a", "b", "c", "d"]


def test_functions_raise_after_the_load(loaded: Load) -> None:
    """Once the file is loaded, a mistake in one of its functions is raised to whoever calls it."""
    config = loaded(
        """
from latent.worker.properties import renderer
@renderer
def late(props):
    return Step("x", no_such=1)
c["workers"] = [Worker("w1", "x")]
c["builders"] = [Builder("b", [Step(late, name="late")])]
"""
    )
    with pytest.raises(TypeError):
        config.builders["b"].steps[0].command.function(None)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3) | st.just(object),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["workers", "builders", "protocols", "db", "www", "limits", "reaper", "machines", "title", "journal_days"]
INNER = [
    "peer",
    "port",
    "interface",
    "advertise",
    "token",
    "version",
    "url",
    "max_instances",
    "max_starting",
    "session_timeout",
    "lease_seconds",
]
section = st.dictionaries(st.sampled_from(INNER), junk, max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(KEYS) | st.text(max_size=6),
        junk
        | st.dictionaries(st.sampled_from(INNER), junk | st.dictionaries(st.sampled_from(INNER), junk, max_size=3), max_size=4),
        max_size=5,
    )
)
def test_junk(tmp_path: Path, content: dict[str, object]) -> None:
    """Whatever is in `c`, the answer is a Config or a ConfigError of complete messages, never another exception."""
    path = tmp_path / "master.cfg"
    path.write_text("import junk_of_the_test\nc = junk_of_the_test.CONTENT\n")
    module = type(sys)("junk_of_the_test")
    module.CONTENT = content  # type: ignore[attr-defined]
    sys.modules["junk_of_the_test"] = module
    errors = ["master.cfg: ; "]
    try:
        load(path)
    except ConfigError as error:
        errors = error.errors
    finally:
        del sys.modules["junk_of_the_test"]
    assert errors
    assert all(message.startswith("master.cfg:") and "; " in message for message in errors)


@given(st.sampled_from(KEYS), st.data())
def test_misspelt_key(key: str, data: st.DataObject) -> None:
    """One slip of the finger in a key of at least five letters, and the key that was meant is named."""
    from latent.config.check import KEYS as known
    from latent.worker.words import did_you_mean

    assert set(known) == set(KEYS)
    if len(key) < 5:
        return
    at = data.draw(st.integers(0, len(key) - 2))
    kind = data.draw(st.sampled_from(["swap", "drop", "double", "case"]))
    slips = {
        "swap": key[:at] + key[at + 1] + key[at] + key[at + 2 :],
        "drop": key[:at] + key[at + 1 :],
        "double": key[: at + 1] + key[at:],
        "case": key[:at] + key[at].upper() + key[at + 1 :],
    }
    assert did_you_mean(slips[kind], known, "the settings") == f"did you mean {key!r}?"


def test_objects_that_fight_back(master_cfg: Callable[[str], Path]) -> None:
    """Values whose every method raises are refused like any others."""
    path = master_cfg("""
        class Hostile:
            def _no(self, *args): raise RuntimeError("no")
            __repr__ = __str__ = __eq__ = __len__ = __iter__ = __bool__ = __getattr__ = _no
            __hash__ = object.__hash__
        c["workers"] = [Hostile()]
        c["title"] = Hostile()
        c["limits"] = {"max_instances": Hostile()}
        c["www"] = Hostile()
        c["db"] = {"url": Hostile()}
        c["journal_days"] = Hostile()
    """)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert len(caught.value.errors) == 6
