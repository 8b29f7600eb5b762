"""What every test gets: nobody may leave anything behind."""

from __future__ import annotations

from tests.house.guards import collected_garbage, flush_logged_errors, leaves_nothing_behind

__all__ = ["collected_garbage", "flush_logged_errors", "leaves_nothing_behind"]
