"""What is committed is fit for anybody's machine, and the pages say what is there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.requires import require

ROOT = Path(__file__).resolve().parents[2]

require(shutil.which("git") and (ROOT / ".git").exists(), "a git checkout", "apt-get install git, and clone the repository")

# Written in pieces, so that this file does not contain what it looks for.
MACHINE_PATH = re.compile(
    r"(?<![\w.}>*-])/(?:" + "|".join(["work", "root", "home", "tmp", "opt/pypi", "opt/wheels"]) + r")(?=/\w)"
)
HOSTS = re.compile(
    "|".join(
        ["pypi" + r"\.org", "python" + "hosted", "npm" + r"js\.(?:org|com)", "deb" + r"\.debian\.org", "proxy" + r"\.golang"]
    )
)


def tracked() -> list[Path]:
    """The files that git knows, and those that it would take in."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> dict[str, str]:
    found = {}
    for path in tracked():
        try:
            found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


@pytest.mark.parametrize("pattern", [MACHINE_PATH, HOSTS], ids=["machine path", "registry host"])
def test_nothing_names_a_machine(pattern: re.Pattern[str]) -> None:
    """No file names a path or a package index of the machine that it was written on."""
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_the_patterns_find_what_they_look_for() -> None:
    """A planted path and a planted host are found, and what only looks like one is not."""
    for place in ("work", "root", "home", "tmp"):
        assert MACHINE_PATH.search(f"cd /{place}/main")
        assert MACHINE_PATH.search(f"open('/{place}/x')")
    assert HOSTS.search("https://" + "pypi" + ".org/simple")
    for innocent in ("docs/work/main", "state/home/x", "a /tmp directory", "{base}/work/x"):
        assert not MACHINE_PATH.search(innocent)


def test_commands_on_the_pages_exist() -> None:
    """Every `make TARGET` that a page shows is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "docs", "help"} <= targets
    for name, text in texts().items():
        if name.endswith(".md"):
            shown = set(re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]*)", text, re.MULTILINE))
            assert shown <= targets, f"{name} shows make targets that are not there"


def test_a_test_skips_itself_in_one_way_only() -> None:
    """`tests.requires.require` is what CI can forbid; pytest's own skips would go unnoticed there."""
    found = []
    for name, text in texts().items():
        if not name.startswith("tests/") or not name.endswith(".py") or name == "tests/requires.py":
            continue
        for node in ast.walk(ast.parse(text, name)):
            if isinstance(node, ast.Attribute) and node.attr in {"skip", "skipif", "importorskip", "skipTest"}:
                found.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def test_news_fragments_have_a_kind() -> None:
    """A fragment whose name towncrier does not understand would be left out of the news."""
    kinds = set(re.findall(r'^directory = "([a-z]+)"$', (ROOT / "towncrier.toml").read_text(), re.MULTILINE)) - {"newsfragments"}
    fragments = [path.name for path in (ROOT / "newsfragments").iterdir() if not path.name.startswith(".")]
    assert [name for name in fragments if not re.fullmatch(rf"[\w+-]+\.(?:{'|'.join(kinds)})\.md", name)] == []


def test_scripts_can_be_run() -> None:
    """Shell scripts stop at the first error, are executable, and bash can read them."""
    scripts = [path for path in tracked() if path.suffix == ".sh" or path == ROOT / ".ci" / "run"]
    assert scripts
    for path in scripts:
        assert path.stat().st_mode & 0o111, f"{path.name} is not executable"
        assert "set -euo pipefail" in path.read_text(), path.name
        subprocess.run(["bash", "-n", str(path)], check=True)
