"""What the documentation and the examples say is what the code does."""

from __future__ import annotations

import configparser
import inspect
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from latent import plugins
from latent.config import check
from latent.config.builder import Builder, Step
from latent.config.loader import load
from latent.config.protocols import BUILDBOT
from latent.config.settings import Buildbot, Config, Limits, Peer, ReaperSettings
from latent.worker.base import AbstractLatentWorker, Worker
from latent.worker.checking import keywords_of
from latent.worker.process import ProcessLatentWorker
from tests.config.conftest import marked, mistakes

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "config.md").read_text()


def declared(group: str) -> list[EntryPoint]:
    """The entry points of setup.cfg, and one whose module is not there."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options.entry_points"][group].strip().splitlines()
    points = [EntryPoint(*(part.strip() for part in line.split("=")), group) for line in lines]
    return [*points, EntryPoint("Missing", "a_module_that_nobody_has:Plugin", group)]


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespaces have latent's own plugins, whatever is installed where the tests run."""
    monkeypatch.setattr(plugins, "worker", plugins.Namespace("latent.worker", lambda plugin: None, declared))
    monkeypatch.setattr(plugins, "util", plugins.Namespace("latent.util", lambda plugin: None, declared))


def table(heading: str) -> dict[str, str]:
    """The first column of the tables below a heading, with the last."""
    section = re.split(r"\n#+ ", DOCUMENT.split(f"\n{heading}\n")[1])[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): row[-1].strip().strip("`") for row in rows}


def python(number: int) -> str:
    return re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[number]


@pytest.mark.usefixtures("_installed")
def test_quickstart() -> None:
    """The quickstart's file is right, and short."""
    path = ROOT / "examples" / "quickstart" / "master.cfg"
    config = load(path)
    assert list(config.workers) == ["local-1", "local-2", "local-3", "local-4"]
    assert list(config.builders) == ["hello", "greet", "count"]
    assert len(path.read_text().splitlines()) <= 22


@pytest.mark.usefixtures("_installed")
def test_first_example(tmp_path: Path) -> None:
    """What the documentation calls complete is complete."""
    path = tmp_path / "master.cfg"
    path.write_text(python(0))
    assert len(load(path).workers) == 4


@pytest.mark.usefixtures("_installed")
def test_other_examples(tmp_path: Path) -> None:
    """The other examples are right too, in a file that has what they leave out."""
    path = tmp_path / "master.cfg"
    path.write_text(python(0) + python(1) + python(3).replace("util.Builder(", "release = util.Builder(", 1))
    assert load(path).peer.advertise == "ci.example.org:9989"
    path.write_text(python(0) + python(2))
    assert load(path).buildbot["pb"].advertise == "ci.example.org:9989"


@pytest.mark.usefixtures("_installed")
def test_plugins_that_can_not_be_had(master_cfg: Callable[[str], Path]) -> None:
    """A misspelt plugin, one whose module is missing, and a misspelt helper are told with their lines, beside all else."""
    path = master_cfg("""
        from latent.plugins import util, worker
        c["workers"] = [
            worker.ProcesLatentWorker("a"),  #!
            worker.Missing("b"),  #!
            worker.ProcessLatentWorker("c", max_bilds=1),  #!
        ]
        c["builders"] = [
            util.Bilder("d", ["true"]),  #!
            util.Builder("e", [util.Step(util.Propety("x"))]),  #!
        ]
    """)
    found = mistakes(path)
    assert [line for line, _, _ in found] == marked(path)
    assert "did you mean 'ProcessLatentWorker'?" in found[0][2]
    assert "a_module_that_nobody_has" in found[1][1]
    assert "did you mean 'max_builds'?" in found[2][2]
    assert "did you mean 'Builder'?" in found[3][2]
    assert "did you mean 'Property'?" in found[4][2]


def test_keys_are_documented() -> None:
    """The reference has every key of `c` and of its dicts, and no other."""
    assert set(table("## Keys of `c`")) == set(check.KEYS)
    assert set(table("### Where agents attach")) == set(check.SECTIONS["protocols", "peer"])
    for protocol in BUILDBOT:
        assert set(table("### Buildbot's agents")) == set(check.SECTIONS["protocols", protocol])
    assert set(table("### The API")) == set(check.SECTIONS["www",])
    assert set(table("### Limits")) == set(check.SECTIONS["limits",])
    assert set(table("### Leaked instances")) == set(check.SECTIONS["reaper",])


def test_defaults_are_documented() -> None:
    """The defaults in the reference are those of the code."""
    peer, limits = table("### Where agents attach"), table("### Limits")
    assert (peer["port"], peer["interface"]) == (str(Peer().port), f'"{Peer().interface}"')
    stock = table("### Buildbot's agents")
    assert (stock["port"], stock["interface"]) == (str(Buildbot().port), f'"{Buildbot().interface}"')
    assert float(stock["keepalive_interval"]) == Buildbot().keepalive_interval
    assert {key: str(value) for key, value in _defaults(Limits).items()} == {
        key: f"{value}.0" if value.isdigit() else value for key, value in limits.items()
    }
    reaper = {key: value if value.isalpha() else float(value) for key, value in table("### Leaked instances").items()}
    assert {key: str(value) if isinstance(value, bool) else value for key, value in _defaults(ReaperSettings).items()} == reaper
    config = table("## Keys of `c`")
    assert config["title"] == f'"{_defaults(Config)["title"]}"'
    assert float(config["journal_days"]) == _defaults(Config)["journal_days"]


def test_builders_and_steps_are_documented() -> None:
    """The reference has every argument of Builder and Step, with its default."""
    for heading, cls in (("## Builders", Builder), ("## Steps", Step)):
        told, known = table(heading), inspect.signature(cls).parameters
        assert set(told) == set(known)
        for name, parameter in known.items():
            if isinstance(parameter.default, bool | int | float):
                assert told[name] == f"{parameter.default:g}" or told[name] == str(parameter.default), name


def test_worker_keywords_are_documented() -> None:
    """The reference has every keyword that all workers, all latent workers, and process workers take, with its default."""
    told = table("## Workers")
    assert set(told) == {*keywords_of(ProcessLatentWorker), *keywords_of(Worker), "count"}
    for name in keywords_of(AbstractLatentWorker):
        default = getattr(AbstractLatentWorker, name, None)
        if isinstance(default, float):
            assert told[name].split("`")[0] == f"{default:g}", name


def _defaults(cls: type) -> dict[str, object]:
    return {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}
