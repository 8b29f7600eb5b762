"""Boxes never overlap, edges never cross a box, whatever the graph."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from latent.swarm.layers import Layout, lay_out

NEAR = 1e-6


def check(layout: Layout, edges: set[tuple[int, int]]) -> None:
    """All that is to be true of every layout."""
    boxes = layout.boxes
    for number, box in enumerate(boxes):
        assert box.x >= -NEAR
        assert box.y >= -NEAR
        assert box.x + box.width <= layout.width + NEAR
        assert box.y + box.height <= layout.height + NEAR
        for other in boxes[:number]:
            apart = box.x + box.width < other.x or other.x + other.width < box.x
            assert apart or box.y + box.height < other.y or other.y + other.height < box.y
    assert {(route.source, route.target) for route in layout.routes} == {(one, other) for one, other in edges if one != other}
    assert len(layout.routes) == len({(one, other) for one, other in edges if one != other})
    starts = defaultdict(set)
    for route in layout.routes:
        begin, end = (route.target, route.source) if route.leads_back else (route.source, route.target)
        points = list(route.points)
        assert points[-1] == (boxes[end].x, boxes[end].middle)
        first = (boxes[begin].x + boxes[begin].width, boxes[begin].middle)
        assert points[0] == first or points[0] in starts[begin], "it begins at its box, or where another edge of its box is"
        starts[begin] |= set(points)
        assert all(one[0] <= other[0] for one, other in pairwise(points))
        for number in range(0, len(points) - 1, 2):
            (x, y), (to_x, to_y) = points[number], points[number + 1]
            assert y == to_y
            for box in boxes:
                beside = to_x <= box.x + NEAR or x >= box.x + box.width - NEAR
                assert beside or y < box.y or y > box.y + box.height, "a level piece leads through a box"
        for number in range(1, len(points) - 1, 2):
            (x, _), (to_x, _) = points[number], points[number + 1]
            assert x < to_x
            for box in boxes:
                assert to_x <= box.x + NEAR or x >= box.x + box.width - NEAR, "a curve leads through a column"


graphs = st.integers(1, 14).flatmap(
    lambda count: st.tuples(
        st.lists(st.tuples(st.integers(20, 300), st.integers(20, 70)), min_size=count, max_size=count),
        st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=40),
    )
)


@given(graphs)
def test_any_graph(graph):
    """Any sizes and any edges, circles and edges of a node to itself too."""
    sizes, edges = graph
    check(lay_out(sizes, edges), edges)


def test_nothing():
    """A graph without nodes is a picture without size."""
    assert lay_out([], set()) == Layout([], [], 0.0, 0.0)


def test_columns_tell_who_waits():
    """Who waits for another is right of it; whom nobody waits for has the same column as its like."""
    edges = {(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)}
    layout = lay_out([(100, 26)] * 4, edges)
    assert layout.boxes[0].x < layout.boxes[1].x == layout.boxes[2].x < layout.boxes[3].x
    check(layout, edges)


def test_parallel_chains_do_not_cross():
    """Four chains side by side are four straight lines, however their nodes are numbered."""
    chains = [[7, 2, 9], [4, 11, 0], [3, 8, 5], [10, 1, 6]]
    edges = {(one, other) for chain in chains for one, other in pairwise(chain)}
    layout = lay_out([(80, 26)] * 12, edges)
    for chain in chains:
        assert len({round(layout.boxes[node].y, 3) for node in chain}) == 1
    check(layout, edges)


def test_a_circle_leads_back():
    """The edge that closes a circle is drawn, and ends on the left; two that answer each other are both drawn."""
    edges = {(0, 1), (1, 2), (2, 0), (2, 1)}
    layout = lay_out([(80, 26)] * 3, edges)
    assert {(route.source, route.target) for route in layout.routes if route.leads_back} == {(2, 0), (2, 1)}
    check(layout, edges)


def test_every_pair_of_sixty():
    """The worst there is: its lanes are shared, so that it stays small."""
    edges = {(one, other) for one in range(60) for other in range(one + 1, 60)}
    layout = lay_out([(80, 26)] * 60, edges)
    check(layout, edges)
    assert sum(len(route.points) for route in layout.routes) < 8 * len(edges)
