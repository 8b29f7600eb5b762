"""What there is in the cloud, and what is said over a line to it: frozen values that JSON can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, field, frozen

from latent.model import JSON, Attempt

CONTROLLER, WORKER, ATTEMPT = "latent:controller", "latent:worker", "latent:attempt"
"""The tags by which an instance is known to be whose."""

PROTECT = "latent:protect"
"""The tag of an instance that nobody may destroy."""

EXPIRES = "latent:expires"
"""The tag that says until when (POSIX seconds) somebody has need of the instance."""

PENDING, RUNNING, STOPPING, EXITED, GONE = "pending", "running", "stopping", "exited", "gone"
"""Where an instance is. EXITED: what ran in it has ended by itself; it is there, and costs, until it is destroyed."""

CALLS = ("create", "describe", "list", "destroy", "tag", "images")
"""What the cloud can be asked for."""

FATES = ("vanish", "exit", "freeze")
"""What may happen to an instance by itself."""

IMAGES = ("agent", "empty")
"""What instances can be made from: one whose agent attaches, and one in which nothing does."""


class CloudError(Exception):
    """The cloud refuses a call. ``kind``: a word that a program understands (`REFUSALS`)."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


REFUSALS = ("internal", "capacity", "quota", "throttled", "image", "unknown", "invalid", "unreachable")
"""The kinds of a `CloudError`. unknown: no such instance; unreachable: no cloud answers at all."""


@frozen(kw_only=True)
class Instance:
    """One instance at one moment. ``created_at``: POSIX seconds. ``message``: how it exited.

    ``responds``: False for one that runs and in which nothing moves any more. ``foreign``: planted as somebody else's.
    """

    id: str
    state: str
    tags: Mapping[str, str]
    image: str
    created_at: float
    responds: bool = True
    message: str = ""
    foreign: bool = False
    environment: Mapping[str, str] = field(factory=dict, repr=False)

    @property
    def exists(self) -> bool:
        return self.state != GONE

    @property
    def attempt(self) -> Attempt | None:
        """Whose it is by its tags; None without them."""
        worker, number = self.tags.get(WORKER), self.tags.get(ATTEMPT, "")
        return Attempt(worker, int(number)) if worker and number.isascii() and number.isdigit() else None

    @property
    def controller_id(self) -> str:
        return self.tags.get(CONTROLLER, "")

    @property
    def whose(self) -> tuple[str, Attempt | None]:
        return self.controller_id, self.attempt

    @property
    def protected(self) -> bool:
        return PROTECT in self.tags

    @property
    def expires_at(self) -> float | None:
        """What the tag says; None without one that says a time."""
        try:
            return float(self.tags[EXPIRES])
        except (KeyError, ValueError):
            return None

    def to_json(self) -> JSON:
        """As a caller is told; what it was started with is not told."""
        doc = asdict(self)
        del doc["environment"]
        return {**doc, "tags": dict(self.tags)}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Instance:
        return cls(**doc)

    def __str__(self) -> str:
        whose = f" of {self.attempt}" if self.attempt else ""
        return f"{self.id}{whose} ({self.state}{': ' + self.message if self.message else ''})"


@frozen
class Entry:
    """Something that happened. ``at``: seconds since the cloud began. ``subject``: an attempt or an instance."""

    at: float
    what: str
    subject: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.at:10.3f} {self.what:<10} {self.subject or '-'}{': ' + self.text if self.text else ''}"


@frozen
class Leak:
    """An instance that is there and should not be, and what is known of how that came."""

    instance: Instance
    history: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.instance} is left; what happened to it:", *(f"  {line}" for line in self.history)])
