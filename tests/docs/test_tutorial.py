"""The tutorial is run as it stands: files are written, commands are typed, and what they print is what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(python master\.cfg|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str]]:
    for found in BLOCK.finditer(PAGE.read_text()):
        yield found[1], found[2]


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, with what it is to print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def as_shown(expected: str, printed: str) -> bool:
    """``...`` stands for anything: a line of its own for any lines, within a line for any text on that line."""
    pattern = ""
    for line in expected.splitlines():
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r"[^\n]*".join(re.escape(part.rstrip()) for part in line.split("...")) + r"[ ]*\n"
    return re.fullmatch(pattern, printed if printed.endswith("\n") or not printed else printed + "\n") is not None


@pytest.fixture
def shell_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "200"}
    yield environment
    subprocess.run(["latent", "stop", "--fast"], cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)


def test_the_tutorial_holds(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    """Every command of the tutorial prints what the tutorial says."""
    seen = 0
    for kind, block in blocks():
        if kind != "console":
            (tmp_path / "master.cfg").write_text(block)
            continue
        for command, expected in commands(block):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=shell_environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=90,
                check=False,
            )
            assert as_shown(expected, done.stdout), f"$ {command}\nis to print\n{expected}\nbut printed\n{done.stdout}"
            seen += 1
    assert seen > 20


@pytest.mark.parametrize(
    ("expected", "printed", "right"),
    [
        ("a\n", "a\n", True),
        ("a\n", "b\n", False),
        ("...\nb\n", "b\n", True),
        ("...\nb\n", "x\ny\nb\n", True),
        ("a ... c\n", "a b c\n", True),
        ("a\n", "a\nb\n", False),
        ("", "a\n", False),
    ],
)
def test_the_comparison_itself(expected: str, printed: str, right: bool) -> None:
    """What differs is seen to differ."""
    assert as_shown(expected, printed) is right
