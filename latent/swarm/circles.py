"""Which nodes of a graph lie on a circle. Pure, and linear: the graph may have a million nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MOST_CIRCLES = 20

_SHOWN = 20


def circles(downstream: Sequence[Iterable[int]]) -> list[list[int]]:
    """Circles that have no node in common, each in the order of its edges; none only if the graph has none.

    ``downstream[n]``: the nodes to which the edges of node n lead. At most `MOST_CIRCLES` are looked for.
    """
    ahead = _entangled(downstream)
    found: list[list[int]] = []
    walk: dict[int, int] = {}
    for start in ahead:
        path: list[int] = []
        node = start
        while node not in walk:
            walk[node] = start
            path.append(node)
            node = ahead[node][0]
        if path and walk[node] == start:
            found.append(path[path.index(node) :])
            if len(found) == MOST_CIRCLES:
                break
    return found


def _entangled(downstream: Sequence[Iterable[int]]) -> dict[int, list[int]]:
    """The nodes that come after a circle and before one, or are on one, each with those of its edges that lead to such a node.

    There is at least one such edge for each.
    """
    before = [0] * len(downstream)
    for nodes in downstream:
        for node in nodes:
            before[node] += 1
    free = [node for node, count in enumerate(before) if not count]
    for node in free:  # grows on the way
        for after in downstream[node]:
            before[after] -= 1
            if not before[after]:
                free.append(after)
    ahead = {node: [after for after in downstream[node] if before[after]] for node, count in enumerate(before) if count}
    back: dict[int, list[int]] = {node: [] for node in ahead}
    for node, nodes in ahead.items():
        for after in nodes:
            back[after].append(node)
    ends = [node for node, nodes in ahead.items() if not nodes]
    for end in ends:  # grows on the way
        del ahead[end]
        for node in back[end]:
            ahead[node].remove(end)
            if not ahead[node]:
                ends.append(node)
    return ahead


def told(names: Sequence[str]) -> str:
    """A circle in words: ``a after c after b after a``. ``names``: in the order of the edges, which is that of the work."""
    start = names.index(min(names))
    turned = [names[start - n] for n in range(len(names) + 1)]
    if len(turned) > _SHOWN:
        turned = [*turned[: _SHOWN // 2], f"({len(turned) - _SHOWN} more)", *turned[-_SHOWN // 2 :]]
    return " after ".join(turned)
