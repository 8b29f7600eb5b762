"""The page about the test cloud: its tests are run as they stand, and it names every order."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latent.errors import LatentError
from latent.testing.cloud import CloudLatentWorker, Orders

PAGE = (Path(__file__).parents[2] / "docs" / "test-cloud.md").read_text()
TESTS = [block for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "def test_" in block]


@pytest.mark.parametrize("number", range(len(TESTS)))
def test_examples(tmp_path: Path, number: int, flush_logged_errors: Callable[..., object]) -> None:
    """Each test on the page passes."""
    namespace: dict[str, Any] = {}
    exec(compile(TESTS[number], f"docs/test-cloud.md, example {number + 1}", "exec"), namespace)
    (test,) = (value for name, value in namespace.items() if name.startswith("test_"))
    test(tmp_path)
    flush_logged_errors(LatentError)


def test_page_is_complete() -> None:
    """The page names every order and every keyword."""
    orders = {name for name, value in vars(Orders).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert {name for name in orders - {"order", "instance"} if f"cloud.{name}(" not in PAGE} == set()
    keywords = set(inspect.signature(CloudLatentWorker.reconfigService).parameters) - {"self", "name", "password", "kwargs"}
    assert {name for name in keywords if f"| `{name}` |" not in PAGE} == set()
