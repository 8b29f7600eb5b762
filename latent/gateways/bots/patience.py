"""How long a bot's call may wait for work, and when the bot's next one is due (specs/bots.md). Pure; all in seconds."""

from __future__ import annotations

KEEP_ALIVE = 600.0

LONGEST_CALL = 300.0
"""What a call without a deadline may take."""

SHARE = 0.8
"""How much of the time that a call has may be spent waiting for work."""

SHORTEST_POLL = 3.0
"""One that would be shorter is not worth it."""

BUSY_INTERVAL = 10.0
"""Between two calls of a bot that has a lease: so much later it hears of a cancellation."""


def poll_seconds(deadline: float | None, keep_alive: float) -> float:
    """How long a call may wait that has ``deadline`` seconds left, None if it has no end."""
    return SHARE * min(LONGEST_CALL if deadline is None else deadline, keep_alive)


def due_in(keep_alive: float, lapses: float | None) -> float:
    """When the next call is due. ``lapses``: after how long without one a bot that has a lease loses it, None if it has none."""
    if lapses is None:
        return keep_alive
    return min(keep_alive, BUSY_INTERVAL, lapses / 3)
