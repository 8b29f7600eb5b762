"""The plugin of examples/own-plugin, installed as its author would install it."""

from __future__ import annotations

import configparser
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from latent import plugins
from latent.config.loader import load
from latent.errors import ConfigError, LatentError, LatentWorkerConfigurationError, LatentWorkerFailedToSubstantiate
from latent.model import Attempt
from latent.plugins import Namespace
from latent.worker import hooks, results
from tests.worker.kit import enrolment

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-plugin"
SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]
CONTROLLER = "c0ffee" * 5


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class, found through the entry point that its setup.cfg declares."""
    parser = configparser.ConfigParser()
    parser.read(EXAMPLE / "setup.cfg")
    site = tmp_path / "site"
    info = site / "latent_command-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: latent-command\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[latent.worker]" + parser["options.entry_points"]["latent.worker"] + "\n")
    shutil.copy(EXAMPLE / "latent_command.py", site)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "latent_command", raising=False)
    importlib.invalidate_caches()
    # What the process has read of what is installed, if it does so now, is not to outlive this test.
    monkeypatch.setattr(plugins.worker, "_known", plugins.worker._known)
    return Namespace("latent.worker", plugins._check_worker).CommandLatentWorker


@pytest.fixture
def keywords(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Commands that go through the example's launcher."""
    running = tmp_path / "running"
    launcher = [sys.executable, str(EXAMPLE / "launcher.py"), str(running)]
    yield {
        "start": [*launcher, "start", "{id}", *SLEEPER],
        "stop": [*launcher, "stop", "{id}"],
        "check": [*launcher, "check", "{id}"],
        "list": [*launcher, "list"],
    }
    for pidfile in running.glob("latent-*[0-9]"):
        pid = int(pidfile.read_text().split()[0])
        if psutil.pid_exists(pid) and psutil.Process(pid).cmdline() == SLEEPER:
            psutil.Process(pid).kill()


def made(plugin: Any, keywords: dict[str, Any], number: int = 1, **changed: Any) -> Any:
    worker = plugin("w-1", **{**keywords, **changed})
    worker.reconfigService("w-1", **{**keywords, **changed})
    worker.reactor = reactor
    worker.enrolment = enrolment("w-1", number, CONTROLLER)
    return worker


@ensureDeferred
async def test_life(plugin: Any, keywords: dict[str, Any]) -> None:
    """Start, check, list, resume by another controller, stop: all hooks keep their promises."""
    worker = made(plugin, keywords)
    (name,) = results.start_result(worker, await hooks.call(worker.start_instance, None))
    assert name == f"latent-{CONTROLLER}-w-1-1"
    await hooks.call(worker.start_instance, None)
    assert results.check_result(worker, await hooks.call(worker.check_instance)) == (True, "")
    handle = results.handle(worker, await hooks.call(worker.instance_handle))

    later = made(plugin, keywords)
    (listed,) = results.listed(later, await hooks.call(later.list_instances))
    assert (listed.attempt, listed.handle, listed.controller_id) == (Attempt("w-1", 1), handle, CONTROLLER)
    assert results.resume_result(later, await hooks.call(later.resume_instance, handle)) is True
    assert results.resume_result(later, await hooks.call(made(plugin, keywords, 2).resume_instance, handle)) is False
    await hooks.call(later.stop_instance, True)
    await hooks.call(later.destroy_instance, handle)
    good, message = results.check_result(later, await hooks.call(later.check_instance))
    assert not good
    assert "is gone" in message
    assert results.listed(later, await hooks.call(later.list_instances)) == ()


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (["false"], LatentWorkerFailedToSubstantiate, "exit code 1; no output"),
        (["/no/such/program"], LatentWorkerConfigurationError, "can't be run .*correct start="),
        ([*SLEEPER], LatentWorkerFailedToSubstantiate, "took more than 0.2 s"),
    ],
)
@ensureDeferred
async def test_failed_start(
    plugin: Any, keywords: dict[str, Any], command: list[str], error: type[Exception], message: str
) -> None:
    """A command that fails, is missing or hangs is a start that failed."""
    timeout = 0.2 if command == SLEEPER else 60
    worker = made(plugin, {**keywords, "check": ["false"]}, start=command, command_timeout=timeout)
    with pytest.raises(error, match=message):
        await hooks.call(worker.start_instance, None)


@ensureDeferred
async def test_stop_that_does_nothing(plugin: Any, keywords: dict[str, Any]) -> None:
    """An instance that is still there after its stop is never taken for gone."""
    worker = made(plugin, keywords, stop=["true"], check=["true"])
    with pytest.raises(LatentError, match="is still there"):
        await hooks.call(worker.stop_instance)


def test_wrong_declarations(plugin: Any, keywords: dict[str, Any]) -> None:
    """All that is wrong is told at once."""
    with pytest.raises(ConfigError) as raised:
        plugin("w1", start="run it", stop=["stop", "{name}"], check=[3], command_timeout=0)
    assert len(raised.value.errors) == 5
    with pytest.raises(ConfigError, match=r"did you mean 'check'\?"):
        plugin("w1", **keywords, chek=["true"])


def test_configuration(plugin: Any) -> None:
    """The example's master.cfg declares what its README says."""
    config = load(EXAMPLE / "master.cfg")
    assert sorted(config.workers) == ["background-1", "background-2"]
    assert list(config.builders) == ["hello"]
