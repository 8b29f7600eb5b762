"""A call that is not answered but refused."""

from __future__ import annotations

import grpc

MESSAGE_LIMIT = 1000
"""Characters; a status travels in a header, which has little room."""

Details = tuple[tuple[str, bytes], ...]


class Refusal(Exception):
    """A call is answered with this status. ``details``: trailing metadata."""

    def __init__(self, code: grpc.StatusCode, message: str, details: Details = ()) -> None:
        self.code = code
        self.message = message[:MESSAGE_LIMIT]
        self.details = details
        super().__init__(f"{code.name}: {self.message}")
