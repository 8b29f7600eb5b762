"""Who the controller is, and what it gives each attempt so that its start can be repeated and its agent recognised."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

from attrs import define, field

from latent.model import JSON, Attempt
from latent.worker.base import Enrolment


@define
class Identity:
    """``servers``: protocol -> "host:port", filled in as the gateways come up. ``secret``: 32 bytes from the store."""

    controller_id: str
    secret: bytes
    servers: dict[str, str] = field(factory=dict)

    def enrolment(self, attempt: Attempt, kept: JSON | None = None) -> Enrolment:
        """The same attempt gets the same enrolment, also after a restart: that is what makes a repeated start the same start.

        ``kept``: the handle that the store has of it.
        """
        return Enrolment(
            attempt=attempt,
            controller_id=self.controller_id,
            idempotency_token=hashlib.sha256(f"{self.controller_id}/{attempt}".encode()).hexdigest()[:32],
            agent_token=self.agent_token(attempt),
            servers=self._servers(),
            kept=kept,
            tokens=self.agent_token,
        )

    def agent_token(self, attempt: Attempt) -> str:
        digest = hmac.digest(self.secret, f"agent/{attempt}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _servers(self) -> Mapping[str, str]:
        return dict(self.servers)


def token_hash(token: str) -> str:
    """What is kept of a token: enough to recognise it, not enough to use it."""
    return hashlib.sha256(token.encode()).hexdigest()
