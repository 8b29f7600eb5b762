"""How plugins are found: entry points, loaded when they are used, with errors that say whose fault."""

from __future__ import annotations

import configparser
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from latent import plugins
from latent.errors import PluginError
from latent.plugins import Namespace, UnknownPlugin

ROOT = Path(__file__).parent.parent


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``installed(distribution, entry_points, **modules)`` puts a distribution of that name on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(distribution: str, entry_points: str, **modules: str) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(entry_points)
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()

    return install


@pytest.fixture
def worker() -> Namespace:
    """The namespace as a program finds it that has just been started."""
    return Namespace("latent.worker", plugins._check_worker)


@pytest.fixture
def util() -> Namespace:
    return Namespace("latent.util", plugins._check_util)


GOOD = """
from latent.worker import AbstractLatentWorker
class Mine(AbstractLatentWorker):
    def start_instance(self, build): pass
    def stop_instance(self, fast=False): pass
"""


def test_third_party(installed: Any, worker: Namespace) -> None:
    """A plugin of any distribution is there under its name, always as the same object."""
    installed("third-party", "[latent.worker]\nMine = third_good:Mine\n", third_good=GOOD)
    assert worker.Mine("w1").name == "w1"
    assert worker.Mine is worker.get("Mine")
    assert "Mine" in dir(worker)


def test_lazy(installed: Any, worker: Namespace) -> None:
    """A plugin is imported when its name is used, not before."""
    text = "[latent.worker]\nMine = third_lazy:Mine\nOther = third_missing:Other\n"
    installed("third-party", text, third_lazy=GOOD)
    assert {"Mine", "Other"} <= set(worker.names())
    assert "third_lazy" not in sys.modules
    assert worker.Mine.__module__ == "third_lazy"


def test_import_without_optional_dependencies() -> None:
    """`from latent.plugins import worker` imports no plugin, and not what plugins need."""
    code = "import sys; from latent.plugins import worker, util; print({'psutil', 'grpc', 'boto3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("import no_such_sdk\n", r"ModuleNotFoundError: .*; install the module 'no_such_sdk'"),
        ("def x(:\n", "SyntaxError"),
        ("raise RuntimeError('at import')\n", "RuntimeError: at import; update the distribution, or report this"),
        ("raise SystemExit('bye')\n", "SystemExit: bye"),
        ("", "AttributeError"),
    ],
)
def test_broken_plugin(installed: Any, worker: Namespace, module: str, message: str) -> None:
    """One that can't be loaded is named with its distribution, its entry point and the cause; it is tried again next time."""
    installed("third-party", "[latent.worker]\nMine = third_broken:Mine\n", third_broken=module)
    for _ in range(2):
        with pytest.raises(PluginError, match=message) as raised:
            _ = worker.Mine
        assert "'Mine' of third-party 1.2 (latent.worker: third_broken:Mine)" in str(raised.value)
        assert raised.value.__cause__ is not None


def test_missing_extra(installed: Any, worker: Namespace) -> None:
    """A plugin whose dependencies come with an extra says how to install it."""
    installed("third-party", "[latent.worker]\nMine = third_extra:Mine [cloud]\n", third_extra="import no_such_sdk\n")
    with pytest.raises(PluginError, match=r"pip install 'third-party\[cloud\]'"):
        _ = worker.Mine


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("text", "it is a str, not a class"),
        ("function", "it is a function, not a class"),
        ("Foreign", "is not a worker; subclass latent.worker.AbstractLatentWorker"),
        ("NoStart", "has no start_instance; define"),
    ],
)
def test_not_a_worker(installed: Any, worker: Namespace, target: str, message: str) -> None:
    """What is no worker's class is refused when it is loaded, not when a build needs it."""
    module = GOOD + (
        "text = 'x'\ndef function(): pass\nclass Foreign: pass\n"
        "class NoStart(AbstractLatentWorker):\n    def stop_instance(self, fast=False): pass\n"
    )
    installed("third-party", f"[latent.worker]\nMine = third_wrong:{target}\n", third_wrong=module)
    with pytest.raises(PluginError, match=message) as raised:
        _ = worker.Mine
    assert "third-party 1.2" in str(raised.value)


def test_same_name_twice(installed: Any, worker: Namespace) -> None:
    """A name that two distributions claim belongs to neither; both are named."""
    installed("first-party", "[latent.worker]\nMine = first_mine:Mine\n", first_mine=GOOD)
    installed("second-party", "[latent.worker]\nMine = second_mine:Mine\n", second_mine=GOOD)
    with pytest.raises(PluginError, match=r"'Mine' twice, from first-party 1\.2 .* and second-party 1\.2 .*; uninstall one"):
        _ = worker.Mine


def test_misspelt(installed: Any, worker: Namespace) -> None:
    """An unknown name is answered with the nearest one."""
    installed("third-party", "[latent.worker]\nFantasticWorker = third_good:Mine\n", third_good=GOOD)
    with pytest.raises(UnknownPlugin, match=r"no plugin 'FantasticWroker'; did you mean 'FantasticWorker'\?"):
        _ = worker.FantasticWroker
    assert not hasattr(worker, "FantasticWroker")


def test_installed_later(installed: Any, worker: Namespace) -> None:
    """A distribution that is installed while the controller runs is found at the next use of its name."""
    assert "Mine" not in worker.names()
    installed("third-party", "[latent.worker]\nMine = third_later:Mine\n", third_later=GOOD)
    assert worker.Mine.__name__ == "Mine"


def test_nothing_installed() -> None:
    """Where not even latent's own plugins are there, the remedy is to install latent."""
    empty = Namespace("latent.worker", plugins._check_worker, lambda group: [])
    with pytest.raises(UnknownPlugin, match="install latent itself"):
        _ = empty.Worker


def test_util(installed: Any, util: Namespace) -> None:
    """The other group holds whatever can be called."""
    text = "[latent.util]\nshout = third_util:shout\nnumber = third_util:number\n"
    installed("third-party", text, third_util="def shout(s): return s.upper()\nnumber = 3\n")
    assert util.shout("a") == "A"
    with pytest.raises(PluginError, match="it is an int, which can't be called"):
        _ = util.number


def test_looking_at_it_loads_nothing(worker: Namespace) -> None:
    """Whoever looks what kind of object a namespace is gets no plugin."""
    with pytest.raises(AttributeError):
        _ = worker.__wrapped__
    assert repr(worker) == "<plugins of latent.worker>"


def own_entry_points() -> list[Any]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return [
        pytest.param(metadata.EntryPoint(*(part.strip() for part in line.split("=")), group), id=line)
        for group in ("latent.worker", "latent.util")
        for line in parser["options.entry_points"][group].strip().splitlines()
    ]


@pytest.mark.parametrize("entry_point", own_entry_points())
def test_own_plugins(entry_point: metadata.EntryPoint) -> None:
    """Every plugin that latent itself declares loads and passes the checks."""
    check = plugins._check_worker if entry_point.group == "latent.worker" else plugins._check_util
    assert Namespace(entry_point.group, check, lambda group: [entry_point]).get(entry_point.name) is not None
