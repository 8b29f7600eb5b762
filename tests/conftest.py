"""What every test gets: nobody may leave anything behind, nobody may wait for ever."""

from __future__ import annotations

from hypothesis import settings

from tests.house.guards import (
    collected_garbage,
    flush_logged_errors,
    leaves_nothing_behind,
    marked_environment,
    pytest_pyfunc_call,
)

__all__ = ["collected_garbage", "flush_logged_errors", "leaves_nothing_behind", "marked_environment", "pytest_pyfunc_call"]

# How long an example takes says more about the machine than about latent. A failure prints how to see it again.
settings.register_profile("latent", deadline=None, print_blob=True)
settings.load_profile("latent")
