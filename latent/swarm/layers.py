"""Where the boxes of a directed graph go, in columns from left to right, and how its edges run between them. Pure.

An edge leads from a column to a later one. On its way through the columns between it has a lane of its own, so that no edge
ever crosses a box; edges with the same source share their lanes, up to where they part. A graph with circles is drawn all the
same: the edges that close one lead back.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Sequence

from attrs import define, field, frozen

LANE = 10.0
"""Pixels that an edge has for itself between the boxes of a column."""

SWEEPS, FEWER, MANY = 12, 4, 10_000
"""How often the columns are put in order, to and fro; where there are so many edges and lanes, less often."""

SETTLES = 6
"""How often the boxes of a column are moved to where their neighbours are."""


@frozen
class Box:
    """Pixels; ``x`` and ``y`` are of the upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@frozen
class Route:
    """An edge: ``points`` from left to right. From the first to the second, the third to the fourth... it is straight and level.

    It begins where it parts from those of the same source that go on. ``leads_back``: it ends on the left.
    """

    source: int
    target: int
    points: Sequence[tuple[float, float]]
    leads_back: bool = False


@frozen
class Layout:
    """``boxes`` by node, ``routes`` one for each edge."""

    boxes: Sequence[Box]
    routes: Sequence[Route]
    width: float
    height: float


@define
class _Vertex:
    """A node, or the lane of a node's edges through a column."""

    column: int
    height: float
    after: list[int] = field(factory=list)
    before: list[int] = field(factory=list)
    y: float = 0.0


def lay_out(sizes: Sequence[tuple[float, float]], edges: Collection[tuple[int, int]], *, gap: float = 12.0) -> Layout:
    """``sizes``: width and height of each node; ``gap``: between them. ``edges``: pairs of nodes; one to itself is left out."""
    forward, back = _directed(len(sizes), edges)
    columns = _columns(len(sizes), forward | {(target, source) for source, target in back})
    vertices = [_Vertex(column, height) for column, (_, height) in zip(columns, sizes, strict=True)]
    lanes = _add_lanes(vertices, forward | {(target, source) for source, target in back})
    order = _ordered(vertices)
    _place(vertices, order, gap)
    return _drawn(sizes, vertices, lanes, forward, back)


def _directed(count: int, edges: Collection[tuple[int, int]]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """The edges that close no circle, and those that do: they lead to a node that leads to them."""
    after: list[list[int]] = [[] for _ in range(count)]
    incoming = [0] * count
    target: int | None
    for source, target in sorted(set(edges)):
        if source != target:
            after[source].append(target)
            incoming[target] += 1
    forward, back = set(), set()
    state = [0] * count  # 1: on the way that is being followed, 2: followed to all ends
    for start in sorted(range(count), key=lambda node: (incoming[node] > 0, node)):
        if state[start]:
            continue
        state[start] = 1
        way = [(start, iter(after[start]))]
        while way:
            node, rest = way[-1]
            target = next(rest, None)
            if target is None:
                state[node] = 2
                way.pop()
            elif state[target] == 1:
                back.add((node, target))
            else:
                forward.add((node, target))
                if not state[target]:
                    state[target] = 1
                    way.append((target, iter(after[target])))
    return forward, back


def _columns(count: int, edges: Collection[tuple[int, int]]) -> list[int]:
    """Each node is right of all that lead to it; one that nothing leads to stands just left of what it leads to."""
    after: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for source, target in edges:
        after[source].append(target)
        waiting[target] += 1
    roots = [node for node in range(count) if not waiting[node]]
    columns, free = [0] * count, list(roots)
    while free:
        node = free.pop()
        for target in after[node]:
            columns[target] = max(columns[target], columns[node] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                free.append(target)
    for node in roots:
        if after[node]:
            columns[node] = min(columns[target] for target in after[node]) - 1
    return columns


def _add_lanes(vertices: list[_Vertex], edges: Collection[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Joins the vertices; the lanes that this takes, by source and column."""
    lanes: dict[tuple[int, int], int] = {}
    for source, target in sorted(edges):
        last = source
        for column in range(vertices[source].column + 1, vertices[target].column):
            lane = lanes.get((source, column))
            if lane is None:
                lane = lanes[source, column] = len(vertices)
                vertices.append(_Vertex(column, LANE))
                _join(vertices, last, lane)
            last = lane
        _join(vertices, last, target)
    return lanes


def _join(vertices: list[_Vertex], one: int, other: int) -> None:
    vertices[one].after.append(other)
    vertices[other].before.append(one)


def _ordered(vertices: Sequence[_Vertex]) -> list[list[int]]:
    """The vertices of each column from top to bottom, such that few edges cross."""
    order: list[list[int]] = [[] for _ in range(1 + max((vertex.column for vertex in vertices), default=-1))]
    for number in _as_met(vertices):
        order[vertices[number].column].append(number)
    rank = [0] * len(vertices)
    for column in order:
        _rank(rank, column)
    best, fewest = [list(column) for column in order], _crossings(vertices, order, rank)
    for sweep in range(SWEEPS if sum(len(vertex.after) for vertex in vertices) < MANY else FEWER):
        if not fewest:
            break
        to_right = sweep % 2 == 0
        for column in order if to_right else reversed(order):
            keys = {}
            for number in column:
                near = vertices[number].before if to_right else vertices[number].after
                keys[number] = sum(rank[other] for other in near) / len(near) if near else float(rank[number])
            column.sort(key=lambda number: keys[number])
            _rank(rank, column)
        crossings = _crossings(vertices, order, rank)
        if crossings < fewest:
            best, fewest = [list(column) for column in order], crossings
    return best


def _as_met(vertices: Sequence[_Vertex]) -> list[int]:
    """What belongs together comes one after the other."""
    met, seen = [], [False] * len(vertices)
    for start in range(len(vertices)):
        ahead = [start]
        while ahead:
            number = ahead.pop()
            if not seen[number]:
                seen[number] = True
                met.append(number)
                ahead += [*reversed(vertices[number].before), *reversed(vertices[number].after)]
    return met


def _rank(rank: list[int], column: Sequence[int]) -> None:
    for position, number in enumerate(column):
        rank[number] = position


def _crossings(vertices: Sequence[_Vertex], order: Sequence[Sequence[int]], rank: Sequence[int]) -> int:
    crossings = 0
    for column in order:
        passed: list[int] = []
        for number in column:
            ends = sorted(rank[other] for other in vertices[number].after)
            crossings += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return crossings


def _place(vertices: Sequence[_Vertex], order: Sequence[Sequence[int]], gap: float) -> None:
    """Give each vertex its middle: in its column's order, and as near as it can be to the middle of its neighbours."""
    for column in order:
        _stack(vertices, column, [0.0] * len(column), gap)
    for settle in range(SETTLES):
        to_right = settle % 2 == 0
        for column in order if to_right else reversed(order):
            wanted = []
            for number in column:
                vertex = vertices[number]
                near = (vertex.before if to_right else vertex.after) or (vertex.after if to_right else vertex.before)
                wanted.append(sum(vertices[other].y for other in near) / len(near) if near else vertex.y)
            _stack(vertices, column, wanted, gap)


def _stack(vertices: Sequence[_Vertex], column: Sequence[int], wanted: Sequence[float], gap: float) -> None:
    """Put each as near to where it is wanted as the others allow: neighbours that would overlap move as one (least squares)."""
    offsets, offset = [], 0.0
    for position, number in enumerate(column):
        if position:
            offset += (vertices[column[position - 1]].height + vertices[number].height) / 2 + gap
        offsets.append(offset)
    blocks: list[tuple[float, int]] = []  # where the first of a block is wanted, summed over its vertices, and how many they are
    for want, offset in zip(wanted, offsets, strict=True):
        total, size = want - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / size:
            more, count = blocks.pop()
            total, size = total + more, size + count
        blocks.append((total, size))
    position = 0
    for total, size in blocks:
        for number in column[position : position + size]:
            vertices[number].y = total / size + offsets[position]
            position += 1


def _drawn(
    sizes: Sequence[tuple[float, float]],
    vertices: Sequence[_Vertex],
    lanes: dict[tuple[int, int], int],
    forward: Collection[tuple[int, int]],
    back: Collection[tuple[int, int]],
) -> Layout:
    count = 1 + max((vertex.column for vertex in vertices), default=-1)
    widths, steepest = [0.0] * count, [0.0] * count
    for vertex, (width, _) in zip(vertices, sizes, strict=False):
        widths[vertex.column] = max(widths[vertex.column], width)
    for vertex in vertices:
        for other in vertex.after:
            steepest[vertex.column] = max(steepest[vertex.column], abs(vertices[other].y - vertex.y))
    left, x = [0.0] * count, 0.0
    for column in range(count):
        left[column] = x
        x += widths[column] + min(200.0, max(56.0, steepest[column] / 5))
    top = min((vertex.y - vertex.height / 2 for vertex in vertices), default=0.0)
    boxes = [
        Box(left[vertex.column], vertex.y - top - height / 2, width, height)
        for vertex, (width, height) in zip(vertices, sizes, strict=False)
    ]

    def way(source: int, target: int, begin: int) -> list[tuple[float, float]]:
        """From the right side of the column ``begin``, which is the source's or one with a lane, to the target."""
        points = [(boxes[source].x + boxes[source].width, boxes[source].middle)]
        points.append((left[begin] + widths[begin], boxes[source].middle))
        if begin > vertices[source].column:
            points = [(left[begin] + widths[begin], vertices[lanes[source, begin]].y - top)] * 2
        for column in range(begin + 1, vertices[target].column):
            y = vertices[lanes[source, column]].y - top
            points += [(left[column], y), (left[column] + widths[column], y)]
        points.append((boxes[target].x, boxes[target].middle))
        return points

    drawn = [(*edge, False) for edge in forward] + [(target, source, True) for source, target in back]
    routes, begun = [], set[int]()
    for source, target, leads_back in sorted(drawn, key=lambda edge: (edge[0], -vertices[edge[1]].column, *edge)):
        begin = vertices[target].column - 1 if source in begun else vertices[source].column
        begun.add(source)
        ends = (target, source) if leads_back else (source, target)
        routes.append(Route(*ends, way(source, target, begin), leads_back))
    width = max((box.x + box.width for box in boxes), default=0.0)
    height = max((vertex.y - top + vertex.height / 2 for vertex in vertices), default=0.0)
    return Layout(boxes, routes, width, height)
