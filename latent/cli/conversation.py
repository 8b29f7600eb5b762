"""What `latent leaks` asks and waits for, whoever answers: the running controller, or a look without one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from attrs import field, frozen

Doc = dict[str, Any]


@frozen
class Pause:
    """Wait for so many seconds."""

    seconds: float


@frozen(kw_only=True)
class Ask:
    """Scan, and with ``reap`` destroy what has leaked; ``body`` is that of ``POST /leaks/reap``."""

    reap: bool = False
    body: Doc = field(factory=dict)


Conversation = Generator[Ask | Pause, Doc, Doc]
"""What is to be done, one thing after the other, whoever does it. Ask is answered with a document of the API, Pause with
anything. The result is the last document, with what was destroyed before it."""
