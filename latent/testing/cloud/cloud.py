"""The cloud of a test: a provider that takes a test's orders."""

from __future__ import annotations

from typing import Any

from latent.testing.cloud import desk
from latent.testing.cloud.orders import Orders
from latent.testing.cloud.provider import Provider


class Cloud(Provider, Orders):
    """In the same process as the test; `Provider` says what it is made with."""

    def order(self, what: str, /, **arguments: Any) -> Any:
        return desk.carry_out(self, what, arguments)
