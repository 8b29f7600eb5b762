"""A workflow as a picture (SVG): what waits for what, and how far it is. Pure.

A workflow with many tasks is drawn by its arrays, each a box with how far it is; one array waits for another when one of its
tasks waits for one of the other's.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

from attrs import field, frozen

from latent.swarm.layers import Box, Layout, Route, lay_out
from latent.swarm.looks import Look, by_look, told
from latent.swarm.statuses import TaskStatus

MANY = 200
"""A workflow with more tasks than this is drawn by its arrays."""

LONGEST = 40
"""Characters of a name that are shown; the whole of it shows where the mouse is."""

CHARACTER, SIZE, LINE = 7.3, 12, 18
"""Pixels: the width of a character, the size of the type, and from a line of text to the next."""

MARGIN, PADDING = 24, 10

FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
INK, FAINT = "#1f2328", "#59636e"

FILL = {
    Look.DONE: ("#d5f0dc", "#2c8a45"),
    Look.FAILED: ("#ffd8d4", "#c4231f"),
    Look.RUNNING: ("#cfe4ff", "#1f66d1"),
    Look.STARTING: ("#e3f1fb", "#4a94c9"),
    Look.QUEUED: ("#ece8fb", "#7d68c4"),
    Look.RETRYING: ("#fff0c2", "#b07d00"),
    Look.WAITING: ("#f4f5f7", "#a3abb5"),
}
"""The inside and the border of a box."""


@frozen
class Node:
    """A task, or an array with many. ``counts``: its tasks, by status. ``note``: more about it, for who points at it."""

    name: str
    counts: Mapping[TaskStatus, int]
    note: str = ""
    is_array: bool = False


@frozen
class Graph:
    """``edges``: positions of a node and of one that waits for it. ``begun``: there are statuses to be shown."""

    title: str
    nodes: Sequence[Node]
    edges: Collection[tuple[int, int]]
    begun: bool = True


@frozen
class Member:
    """A task of a graph. ``array``: the position of its array; ``downstream``: positions of the tasks that wait for it."""

    name: str
    array: int
    downstream: Sequence[int]
    status: TaskStatus = TaskStatus.REGISTERING
    note: str = ""


def graph_of(
    title: str, arrays: Sequence[str], members: Iterable[Member], *, begun: bool = True, by_array: bool | None = None
) -> Graph:
    """The graph of a workflow. ``arrays``: their names. ``by_array`` None: if it has more than `MANY` tasks."""
    tasks = list(members)
    if by_array is None:
        by_array = len(tasks) > MANY
    if not by_array:
        nodes = [Node(task.name, {task.status: 1}, f"array {arrays[task.array]}. {task.note}".strip()) for task in tasks]
        edges = {(number, other) for number, task in enumerate(tasks) for other in task.downstream}
        return Graph(title, nodes, edges, begun)
    counts: list[Counter[TaskStatus]] = [Counter() for _ in arrays]
    for task in tasks:
        counts[task.array][task.status] += 1
    edges = {(task.array, tasks[other].array) for task in tasks for other in task.downstream}
    nodes = []
    for number, name in enumerate(arrays):
        note = "Some of its tasks wait for others of them." if (number, number) in edges else ""
        nodes.append(Node(name, counts[number], note, is_array=True))
    return Graph(title, nodes, {(one, other) for one, other in edges if one != other}, begun)


def svg(graph: Graph) -> str:
    """The picture, a whole document."""
    layout = lay_out([_size(node, graph.begun) for node in graph.nodes], graph.edges)
    header = _header(graph)
    top = MARGIN + header.height + MARGIN
    width = max(layout.width, header.width) + 2 * MARGIN
    height = top + layout.height + MARGIN
    left = (width - layout.width) / 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{FONT}" font-size="{SIZE}" role="img">',
            f"<title>{_text(graph.title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0.5 L8 4 L0 7.5 z" fill="#7b8591"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<g transform="translate({MARGIN} {MARGIN})">',
            *header.lines,
            "</g>",
            f'<g transform="translate({left:.1f} {top:.1f})">',
            *_drawn(graph, layout),
            "</g>",
            "</svg>",
            "",
        ]
    )


@frozen
class _Part:
    """Some lines of the picture, and how much room they take."""

    lines: Sequence[str] = field(factory=list)
    width: float = 0.0
    height: float = 0.0


def _header(graph: Graph) -> _Part:
    """The title, how many tasks there are, and what the colours mean."""
    counts: Counter[TaskStatus] = Counter()
    for node in graph.nodes:
        counts.update(node.counts)
    looks = by_look(counts)
    total = sum(counts.values())
    title = _shortened(graph.title, 2 * LONGEST)
    lines = [f'<text y="{SIZE + 2}" font-size="16" font-weight="bold" fill="{INK}">{_text(title)}</text>']
    width = _columns(title) * CHARACTER * 16 / SIZE
    x, y = 0.0, 2.0 * LINE
    said = f"{total:,} task{'' if total == 1 else 's'}"
    lines.append(f'<text y="{y + SIZE - 2}" fill="{FAINT}">{said}</text>')
    x += _columns(said) * CHARACTER + 2 * PADDING
    for look in looks if graph.begun else ():
        fill, border = FILL[look]
        words = f"{looks[look]:,} {look.value}"
        lines.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="12" height="12" rx="3" fill="{fill}" stroke="{border}"/>')
        lines.append(f'<text x="{x + 18:.1f}" y="{y + SIZE - 2}" fill="{INK}">{words}</text>')
        x += 18 + _columns(words) * CHARACTER + 2 * PADDING
    return _Part(lines, max(width, x), y + LINE)


def _size(node: Node, begun: bool) -> tuple[float, float]:
    name = _columns(_shortened(node.name))
    if not node.is_array:
        return (name + (2 if begun else 0)) * CHARACTER + 2 * PADDING, 26.0
    below = _columns(_below(node, begun))
    return max(150.0, (max(name, below)) * CHARACTER + 2 * PADDING), 66.0 if begun else 46.0


def _below(node: Node, begun: bool) -> str:
    total = sum(node.counts.values())
    looks = by_look(node.counts)
    if not begun or not total:
        return f"{total:,} task{'' if total == 1 else 's'}"
    rest = told(looks, without=frozenset({Look.DONE, Look.WAITING}))
    return f"{looks.get(Look.DONE, 0):,} of {total:,} done" + (f", {rest}" if rest else "")


def _drawn(graph: Graph, layout: Layout) -> Iterable[str]:
    yield '<g fill="none" stroke="#9aa4af" stroke-width="1.2">'
    yield from map(_edge, layout.routes)
    yield "</g>"
    for node, box in zip(graph.nodes, layout.boxes, strict=True):
        yield from _node(node, box, graph.begun)


def _edge(route: Route) -> str:
    points = route.points
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for number in range(1, len(points), 2):
        (x, y), (to_x, to_y) = points[number], points[number + 1]
        half = (to_x - x) / 2
        path.append(f"H{x:.1f}")
        path.append(f"C{x + half:.1f} {y:.1f} {to_x - half:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
    ends = 'marker-start="url(#tip)" stroke-dasharray="4 3"' if route.leads_back else 'marker-end="url(#tip)"'
    return f'<path id="e{route.source}-{route.target}" d="{" ".join(path)}" {ends}/>'


def _node(node: Node, box: Box, begun: bool) -> Iterable[str]:
    looks = by_look(node.counts)
    look = _main(looks) if begun else Look.WAITING
    fill, border = FILL[look]
    said = told(looks) if begun else ""
    about = ". ".join(part for part in (f"{node.name}: {said}" if said else node.name, node.note) if part)
    yield f'<g transform="translate({box.x:.1f} {box.y:.1f})"><title>{_text(about)}</title>'
    yield f'<rect width="{box.width:.1f}" height="{box.height:.1f}" rx="5" fill="{fill}" stroke="{border}"/>'
    weight = ' font-weight="bold"' if node.is_array else ""
    yield f'<text x="{PADDING}" y="17"{weight} fill="{INK}">{_text(_shortened(node.name))}</text>'
    if not node.is_array:
        if begun and look.sign:
            x = box.width - PADDING + 2
            yield f'<text x="{x:.1f}" y="17" text-anchor="end" font-weight="bold" fill="{border}">{look.sign}</text>'
    else:
        if begun:
            yield from _bar(looks, box.width - 2 * PADDING)
        yield f'<text x="{PADDING}" y="{box.height - 10:.0f}" fill="{INK}">{_text(_below(node, begun))}</text>'
    yield "</g>"


def _bar(looks: Mapping[Look, int], width: float) -> Iterable[str]:
    total = sum(looks.values())
    yield f'<rect x="{PADDING}" y="28" width="{width:.1f}" height="9" rx="2" fill="#ffffff" stroke="#c8cfd6"/>'
    x = float(PADDING)
    for look in Look:
        part = width * looks.get(look, 0) / total if total else 0.0
        if part and look is not Look.WAITING:
            yield f'<rect x="{x:.2f}" y="28" width="{part:.2f}" height="9" fill="{FILL[look][1]}"/>'
        x += part


def _main(looks: Mapping[Look, int]) -> Look:
    """What a box is coloured for: what went wrong before what goes on, and that before what is over or has not begun."""
    for look in (Look.FAILED, Look.RETRYING, Look.RUNNING, Look.STARTING, Look.QUEUED):
        if looks.get(look):
            return look
    return Look.DONE if looks.get(Look.DONE) == sum(looks.values()) else Look.WAITING


def _shortened(name: str, longest: int = LONGEST) -> str:
    """The name, or its beginning and end: what tells tasks apart is often at the end."""
    clean = _clean(name)
    if _columns(clean) <= longest:
        return clean
    half = longest // 2
    begin, end = "", ""
    for character in clean:
        if _columns(begin + character) > half - 1:
            break
        begin += character
    for character in reversed(clean):
        if _columns(character + end) > half:
            break
        end = character + end
    return f"{begin}…{end}"


def _columns(text: str) -> int:
    """How many characters wide a text is: those of East Asia take the room of two, marks above others none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "FW" else 1
        for character in text
    )


def _clean(text: str) -> str:
    """Without what XML can't hold or what would break the line."""
    return "".join(character if character.isprintable() and not 0xD800 <= ord(character) < 0xE000 else "�" for character in text)


def _text(text: str) -> str:
    return escape(_clean(text), quote=False)
