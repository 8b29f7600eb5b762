"""docs/ec2.md and examples/ec2-spot say what is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from latent.config.loader import load
from latent_ec2 import EC2LatentWorker
from latent_ec2.account import Account
from latent_ec2.choices import REMEMBERED
from latent_ec2.console import LINES
from latent_ec2.declared import KEEP_STOPPED, SPOT_TIMEOUT
from latent_ec2.enrolment import NOTICE_INTERVAL
from latent_ec2.launches import EXPIRY, MOST_USER_DATA
from latent_ec2.options import MOST_TAGS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "ec2.md").read_text()


@pytest.fixture(autouse=True)
def nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_every_option_is_documented() -> None:
    """The table has the keywords that the class takes, those that may be renderables marked, and no others."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (R?) *\|", PAGE, re.MULTILINE)
    marks = {name: mark for names, mark in rows for name in re.findall(r"\w+", names)}
    parameters = inspect.signature(EC2LatentWorker.checkConfig).parameters
    own = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD} - {"self", "name", "password"}
    assert set(marks) == own
    assert {name for name, mark in marks.items() if mark} == set(EC2LatentWorker.renderables)


def test_numbers() -> None:
    """Those of the page are those of the code."""
    assert f"that is still pending is given up for the next choice | {SPOT_TIMEOUT:.0f} |" in PAGE
    assert f"| {KEEP_STOPPED:.0f}, a day |" in PAGE
    assert f"last sign of its controller | {EXPIRY:.0f} |" in PAGE
    assert f"a dict, at most {MOST_TAGS} |" in PAGE
    assert f"EC2 takes {MOST_USER_DATA:,} bytes" in PAGE
    assert f"the last {LINES} lines" in PAGE
    assert (REMEMBERED, NOTICE_INTERVAL) == (180.0, 5)


def test_the_page_loads(tmp_path: Path) -> None:
    """Its master.cfg is one."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "master.cfg").write_text(example)
    assert len(load(tmp_path / "master.cfg").workers) == 200


def test_the_example_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, and with what its first lines say to set."""
    path = ROOT / "examples" / "ec2-spot" / "master.cfg"
    for name in re.findall(r"\b(CI_\w+)=", path.read_text()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    workers = load(path).workers
    assert len(workers) == 20
    first = workers["spot-1"]
    assert isinstance(first, EC2LatentWorker)
    args, kwargs = first.arguments
    first.reconfigService(*args, **kwargs)
    assert first.account == Account(region="eu-west-1")
    monkeypatch.setenv("CI_SUBNETS", "subnet-1")
    assert load(path).workers["spot-1"].arguments[1]["subnet_id"] == ["subnet-1"]
