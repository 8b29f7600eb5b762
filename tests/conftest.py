"""What every test gets: nobody may leave anything behind, nobody may wait for ever."""

from __future__ import annotations

from tests.house.guards import collected_garbage, flush_logged_errors, leaves_nothing_behind, pytest_pyfunc_call

__all__ = ["collected_garbage", "flush_logged_errors", "leaves_nothing_behind", "pytest_pyfunc_call"]
