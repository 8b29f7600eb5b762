"""Circles are found where there are any, and only there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from latent.swarm.circles import MOST_CIRCLES, circles, told

graphs = st.integers(1, 7).flatmap(lambda size: st.lists(st.lists(st.integers(0, size - 1)), min_size=size, max_size=size))


def reached(graph: list[list[int]], start: int) -> set[int]:
    found: set[int] = set()
    ahead = list(graph[start])
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += graph[node]
    return found


@given(graphs)
def test_what_is_found_is_a_circle_and_none_is_missed(graph: list[list[int]]) -> None:
    """Each step of a circle is an edge, no node is in two of them, and without those nodes there would be fewer ways round."""
    found = circles(graph)
    nodes = [node for circle in found for node in circle]
    assert len(nodes) == len(set(nodes))
    for circle in found:
        assert all(after in graph[node] for node, after in zip(circle, [*circle[1:], circle[0]], strict=True))
    on_one = {node for node in range(len(graph)) if node in reached(graph, node)}
    assert set(nodes) <= on_one
    assert bool(found) == bool(on_one)


def test_a_graph_of_a_hundred_thousand_nodes_is_no_trouble() -> None:
    """Neither a long chain nor a long circle is walked recursively."""
    size = 100_000
    chain = [[node + 1] for node in range(size - 1)] + [[]]
    assert circles(chain) == []
    chain[-1] = [0]
    assert circles(chain) == [list(range(size))]


def test_not_all_of_very_many_circles_are_told() -> None:
    """A workflow that waits for itself a thousand times over has a few of them named."""
    assert len(circles([[node] for node in range(1000)])) == MOST_CIRCLES


def test_a_circle_is_told_in_the_order_of_the_waiting() -> None:
    """Work flows from a to b, so b is after a; the telling begins at the smallest name, whatever the circle began with."""
    assert told(["b", "c", "a"]) == "a after c after b after a"
    assert told(["x"]) == "x after x"
