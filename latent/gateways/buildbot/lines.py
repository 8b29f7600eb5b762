"""What a command writes, cut into numbered lines. Pure."""

from __future__ import annotations

from latent.model import LogLine

PIECE = 64 * 1024
"""Characters of one line that are kept as one; a longer line is cut into pieces."""


class StepLines:
    """The lines of one step. Text may be cut anywhere between two calls of `feed`."""

    def __init__(self, step_uuid: str, piece: int = PIECE) -> None:
        self._uuid = step_uuid
        self._piece = piece
        self._number = 0
        self._rests: dict[str, str] = {}

    def feed(self, stream: str, text: str, elapsed: float) -> list[LogLine]:
        """The lines that are complete. ``elapsed``: seconds since the step began."""
        *complete, rest = (self._rests.get(stream, "") + text).split("\n")
        # What was split off with its "\r" is a line's end; a "\r" elsewhere is part of the line.
        pieces = [piece for line in complete for piece in self._pieces(line.removesuffix("\r"))]
        *full, rest = self._pieces(rest)
        self._rests[stream] = rest
        return [self._line(stream, piece, elapsed) for piece in pieces + full]

    def close(self, elapsed: float) -> list[LogLine]:
        """The lines that have no end."""
        rests, self._rests = self._rests, {}
        return [self._line(stream, rest, elapsed) for stream, rest in rests.items() if rest]

    def _pieces(self, line: str) -> list[str]:
        """At least one; each but the last is full."""
        if len(line) <= self._piece:
            return [line]
        return [line[start : start + self._piece] for start in range(0, len(line), self._piece)]

    def _line(self, stream: str, text: str, elapsed: float) -> LogLine:
        line = LogLine(step_uuid=self._uuid, line=self._number, time=elapsed, stream=stream, text=text)
        self._number += 1
        return line
