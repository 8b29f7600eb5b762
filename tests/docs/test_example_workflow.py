"""`examples/workflow` in a small form: its parts and its master.cfg as they are, two packages made here, no index."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "workflow"

MODULE = "x = 1\n" + "y = 'long'  # " + "x" * 150 + "\n" + "try:\n    x = 2\nexcept:\n    pass\n"

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "1.0"

[tool.setuptools]
py-modules = ["{name}"]
"""


def source_distribution(directory: Path, name: str) -> None:
    files = {"pyproject.toml": PROJECT.format(name=name), f"{name}.py": MODULE, "tests/python2.py": "print 'no'\n"}
    with tarfile.open(directory / f"{name}-1.0.tar.gz", "w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-1.0/{path}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))


@pytest.fixture
def example(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of commands in a copy of the example, where pip finds two source distributions and nothing else."""
    shutil.copytree(EXAMPLE, tmp_path / "workflow")
    (tmp_path / "sdists").mkdir()
    for name in ("ham", "spam"):
        source_distribution(tmp_path / "sdists", name)
    environment = {
        **os.environ,
        "LATENT_BASEDIR": str(tmp_path / "workflow"),
        "NO_COLOR": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "sdists"),
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the other way round: there is none
    }
    yield environment
    latent(environment, "stop", "--fast")


def latent(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("latent")), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_example(tmp_path: Path, example: dict[str, str]) -> None:
    """Both packages are fetched, counted and linted, and the report has the sums."""
    file = tmp_path / "workflow" / "packages.py"
    text, changed = re.subn(r'PACKAGES = """.*?"""', 'PACKAGES = """ham spam"""', file.read_text(), flags=re.DOTALL)
    assert changed == 1
    file.write_text(text)
    assert latent(example, "start").returncode == 0
    done = latent(example, "workflow", "run", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 done" in done.stdout
    report = (tmp_path / "workflow" / "out" / "report.md").read_text().splitlines()
    assert report[0] == "| package | files | lines | long lines | bare excepts | not read |"
    assert report[2:] == [
        "| ham | 2 | 7 | 1 | 1 | 1 |",
        "| spam | 2 | 7 | 1 | 1 | 1 |",
        "| all | 4 | 14 | 2 | 2 | 2 |",
    ]


def test_what_it_would_do(example: dict[str, str]) -> None:
    """The whole pipeline, as it is, can be drawn without a controller: 91 tasks."""
    drawn = latent(example, "workflow", "graph", str(EXAMPLE / "packages.py"))
    assert drawn.returncode == 0, drawn.stderr
    assert "91 tasks" in drawn.stdout
    assert drawn.stdout.count('<path id="e') == 120
