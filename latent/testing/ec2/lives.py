"""What is known of each instance beside what moto knows, and how it goes from state to state."""

from __future__ import annotations

import base64
from typing import Any

from attrs import Factory, define

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
COMING_AND_GOING = {"pending": "running", "stopping": "stopped", "shutting-down": "terminated"}


@define(eq=False)
class Life:
    """``instance``: moto's object. ``number``: the how-manieth it is, which orders pages. ``due``: when its state changes next.

    ``hidden_until``: until then no call but its launch knows it. ``lasting``: a spot instance that may be stopped.
    ``notice``: when AWS is going to end it. ``nonce``: what its metadata are found under.
    """

    instance: Any
    number: int
    region: str
    token: str
    index: int
    due: float
    hidden_until: float
    nonce: str
    lasting: bool = False
    booted: int = 0
    reboots: bool = False
    frozen: bool = False
    hibernates: bool = False
    notice: float | None = None
    statuses: dict[str, str] = Factory(lambda: {"instance": "ok", "system": "ok"})

    @property
    def id(self) -> str:
        return str(self.instance.id)

    @property
    def state(self) -> str:
        return str(self.instance._state.name)

    @property
    def market(self) -> str:
        return "spot" if self.instance.lifecycle == "spot" else "on-demand"

    @property
    def zone(self) -> str:
        return str(self.instance.placement.zone)

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.instance.ec2_backend.tags.get(self.id, {}))

    @property
    def ended(self) -> bool:
        return self.state in ("shutting-down", "terminated")

    @property
    def user_data(self) -> bytes:
        encoded = self.instance.user_data
        return base64.b64decode(str(encoded)) if encoded else b""

    def become(self, state: str, due: float = 0) -> None:
        """``due``: when it goes on from there by itself, for the states that it does not stay in."""
        self.instance._state.name, self.instance._state.code = state, CODES[state]
        self.due = due

    def because(self, code: str, message: str) -> None:
        reason = self.instance.state_reason
        reason.code, reason.message = code, f"{code}: {message}"
        self.instance._reason = message
