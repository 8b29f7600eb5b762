"""Numbers that can be read off a running controller, in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

Read = Callable[[], Mapping[tuple[tuple[str, str], ...], float]]
"""The number for each set of labels, as they are now."""


@frozen
class Gauge:
    name: str
    help: str
    read: Read


class Gauges:
    """By name; the one that was added last under a name counts."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}

    def add(self, name: str, help: str, read: Read) -> None:
        self._gauges[name] = Gauge(name, help, read)

    def text(self) -> str:
        lines = []
        for gauge in sorted(self._gauges.values(), key=lambda gauge: gauge.name):
            lines += [f"# HELP {gauge.name} {gauge.help}", f"# TYPE {gauge.name} gauge"]
            lines += [f"{gauge.name}{_labels(labels)} {value:g}" for labels, value in gauge.read().items()]
        return "".join(f"{line}\n" for line in lines)


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
