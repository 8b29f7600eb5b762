"""Tests of real parts say what they need, and what to do where it is missing."""

from __future__ import annotations

import os

import pytest


def require(condition: object, what: str, remedy: str) -> None:
    """Skip the test, or the module that calls this while it is imported, unless ``condition`` holds.

        require(shutil.which("initdb"), "a PostgreSQL server", "apt-get install postgresql")

    The reason is printed when the run ends. With LATENT_REQUIRE_ALL=1 (CI) the test fails instead: there, nothing may be missing.
    This is the only way for a test to skip itself; `tests/house/test_repo.py` looks.
    """
    if condition:
        return
    reason = f"{what} is missing: {remedy}"
    if os.environ.get("LATENT_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason} (LATENT_REQUIRE_ALL=1 lets no test skip itself)", pytrace=False)
    pytest.skip(reason, allow_module_level=True)
