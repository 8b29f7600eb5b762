"""A step's output, cut into lines. Pure."""

from __future__ import annotations

PIECE = 256 * 1024
"""Bytes of one line that are sent as one; a longer line comes in pieces."""


class LineSplitter:
    """Feed it bytes as they come; it answers with the lines that are complete, without their ends.

    A line longer than ``piece`` bytes is cut into pieces, between characters if it is UTF-8. No more than that is ever kept.
    """

    def __init__(self, piece: int = PIECE) -> None:
        self._piece = piece
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = self._rest + complete[0]
        else:
            rest = self._rest + rest
        lines = [piece for line in complete for piece in self._pieces(line.removesuffix(b"\r"))]
        *full, self._rest = self._pieces(rest)
        return lines + full

    def close(self) -> list[bytes]:
        """The line that has no end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []

    def _pieces(self, line: bytes) -> list[bytes]:
        """At least one; each but the last is full."""
        pieces = []
        start = 0
        while len(line) - start > self._piece:
            end = start + self._piece
            # A UTF-8 character has at most three bytes after its first; more of them in a row are no character.
            back = next((n for n in range(4) if line[end - n] & 0xC0 != 0x80), 0)
            pieces.append(line[start : end - back])
            start = end - back
        pieces.append(line[start:])
        return pieces
