"""examples/plugin-template is a distribution of its own: it builds, installs, is found, and keeps its promises."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latent.testing.contract import PROMISES, make_latent_worker_tests
from tests.contract.shed import ShedProvider

TEMPLATE = Path(__file__).parents[2] / "examples" / "plugin-template"

PAGE = TEMPLATE.parents[1] / "docs" / "testing-plugins.md"

TESTS = sum(name.startswith("test_") for name in dir(make_latent_worker_tests(ShedProvider)))

PATIENCE = 300.0
"""Seconds after which a program counts as hanging."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a new environment, ``venv``, into which pip has installed the template from a wheel.

    Nothing is fetched from anywhere: latent and what it needs are this environment's own.
    """
    place = tmp_path_factory.mktemp("template")
    source, wheels, venv = place / "source", place / "wheels", place / "venv"
    shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build", ".pytest_cache"))
    run(sys.executable, "-m", "venv", "--without-pip", str(venv), cwd=place)
    (site,) = venv.glob("lib/python*/site-packages")
    ours = (path for path in sys.path if Path(path).name == "site-packages")
    site.joinpath("latent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source), cwd=place)
    run(*pip, "--python", python(place), "install", "--no-index", *map(str, wheels.glob("*.whl")), cwd=place)
    shutil.rmtree(source / "src")
    return place


def python(place: Path) -> str:
    return str(place / "venv" / "bin" / "python")


def run(*command: str, cwd: Path, **variables: str) -> str:
    """What it says. AssertionError with that when it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**environment, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}"
    return done.stdout


def test_contract_by_pytest(installed: Path) -> None:
    """Its own tests pass, as its author runs them: every promise, none skipped, and it is found by its entry point."""
    said = run(python(installed), "-m", "pytest", "-p", "no:cacheprovider", cwd=installed / "source")
    print(said)
    assert f"{TESTS + 1} passed" in said
    assert not re.search("skipped|failed|error", said)


def test_one_promise_by_trial_and_by_unittest(installed: Path) -> None:
    """The same tests are trial's and unittest's, too."""
    path = str(installed / "source" / "tests")
    test = "test_contract.TestTemplateLatentWorker.test_start_and_stop"
    assert "PASSED (successes=1)" in run(python(installed), "-m", "twisted.trial", test, cwd=installed, PYTHONPATH=path)
    assert "OK" in run(python(installed), "-m", "unittest", test, cwd=installed, PYTHONPATH=path)


def test_in_a_master_cfg(installed: Path) -> None:
    """Its master.cfg is a configuration."""
    cfg = str(installed / "source" / "master.cfg")
    print(run(python(installed), "-m", "latent.cli.main", "checkconfig", cfg, cwd=installed))


def test_page_lists_all_promises() -> None:
    """docs/testing-plugins.md has them with the words of the messages, and no other."""
    listed = re.findall(r"^\| `(.+?)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert dict(listed) == {promise.name: promise.text for promise in PROMISES.values()}


def test_page_shows_the_template() -> None:
    """Its code is the template's."""
    shown = re.findall(r"^```(?:python|toml)\n(.+?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    files = [path.read_text() for path in (*TEMPLATE.glob("*.toml"), *TEMPLATE.rglob("*.py"))]
    assert len(shown) > 3
    for block in shown:
        assert any(block in text for text in files), block
