"""The picture of a workflow, read back."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from latent.swarm.graph import LONGEST, Graph, Member, Node, graph_of, svg
from latent.swarm.looks import LOOKS, Look, by_look, told
from latent.swarm.statuses import TaskStatus

SVG = "{http://www.w3.org/2000/svg}"


def pipeline(count: int, statuses: list[TaskStatus] | None = None) -> list[Member]:
    """``count`` fetches, a count for each, and a report of all."""
    status = statuses or [TaskStatus.REGISTERING] * (2 * count + 1)
    fetches = [Member(f"fetch-{n}", 0, [count + n], status[n]) for n in range(count)]
    counts = [Member(f"count-{n}", 1, [2 * count], status[count + n]) for n in range(count)]
    return [*fetches, *counts, Member("report", 2, [], status[-1])]


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def edges(picture: str) -> set[str]:
    return {element.get("id", "") for element in ElementTree.fromstring(picture).iter(f"{SVG}path") if element.get("id")}


def test_few_tasks_are_drawn_one_by_one():
    """Each has its box and its sign, each edge is there, and the header counts them."""
    statuses = [TaskStatus.DONE, TaskStatus.RUNNING, TaskStatus.ERROR_FATAL, *[TaskStatus.REGISTERING] * 4]
    picture = svg(graph_of("packages", ["fetch", "count", "report"], pipeline(3, statuses)))
    found = texts(picture)
    assert found[:6] == ["packages", "7 tasks", "1 done", "1 failed", "1 running", "4 waiting"]
    assert {"fetch-0", "count-2", "report", "✓", "▶", "✗"} <= set(found)
    assert edges(picture) == {"e0-3", "e1-4", "e2-5", "e3-6", "e4-6", "e5-6"}


def test_many_tasks_are_drawn_by_their_arrays():
    """Three boxes stand for 201 tasks; each says how far it is."""
    statuses = [TaskStatus.DONE] * 60 + [TaskStatus.QUEUED] * 40 + [TaskStatus.REGISTERING] * 101
    picture = svg(graph_of("packages", ["fetch", "count", "report"], pipeline(100, statuses)))
    found = texts(picture)
    assert found[-6:] == ["fetch", "60 of 100 done, 40 queued", "count", "0 of 100 done", "report", "0 of 1 done"]
    assert edges(picture) == {"e0-1", "e1-2"}
    one_by_one = svg(graph_of("packages", ["fetch", "count", "report"], pipeline(100, statuses), by_array=False))
    assert len(edges(one_by_one)) == 200


def test_a_workflow_that_has_not_begun_has_no_colours():
    """A graph of a file shows what there is to do."""
    picture = svg(graph_of("packages", ["fetch", "count", "report"], pipeline(100), begun=False))
    assert texts(picture)[-6:] == ["fetch", "100 tasks", "count", "100 tasks", "report", "1 task"]
    assert "waiting" not in picture


def test_tasks_of_an_array_that_wait_for_each_other_are_told():
    """An array's box has no edge to itself, but it says so."""
    chain = [Member(str(n), 0, [n + 1] if n < 9 else []) for n in range(10)]
    picture = svg(graph_of("chain", ["links"], chain, by_array=True))
    assert edges(picture) == set()
    assert "Some of its tasks wait for others of them." in picture


@pytest.mark.parametrize("name", ["<b>&\"'</b>", "a\x1b[2Jb\x00c\ud800", "]]>", "x" * 500, "名前" * 40, "é́́" * 50])
def test_any_name_is_text(name):
    """Markup stays text, what XML can't hold is replaced, and what is long is cut in its middle but can be read whole."""
    picture = svg(Graph(name, [Node(name, {TaskStatus.RUNNING: 1})], set()))
    picture.encode()
    shown = next(text for text in texts(picture)[3:] if text)
    assert len(shown) <= LONGEST or "́" in shown
    titles = [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}title")]
    assert len(titles[1]) >= len(name)


def test_texts_have_room():
    """Each box is as wide as its texts; no text of the header touches the next."""
    statuses = list(TaskStatus) * 3
    members = [Member("n" * (number + 1), 0, [], status) for number, status in enumerate(statuses)]
    for by_array in (False, True):
        root = ElementTree.fromstring(svg(graph_of("title", ["array"], members, by_array=by_array)))
        for group in root.iter(f"{SVG}g"):
            box = group.find(f"{SVG}rect")
            if box is None or group.find(f"{SVG}title") is None:
                continue
            for text in group.findall(f"{SVG}text"):
                if text.get("text-anchor") is None:
                    assert float(text.get("x", 0)) + 7.23 * len(text.text or "") <= float(box.get("width", 0))
        header = next(root.iter(f"{SVG}g"))
        line = sorted((float(text.get("x", 0)), text.text or "") for text in header.findall(f"{SVG}text")[1:])
        for (x, text), (next_x, _) in pairwise(line):
            assert x + 7.23 * len(text) < next_x - 12
    width = float(root.get("width", 0))
    assert all(float(x) <= width for x in re.findall(r'<text x="([\d.]+)"', svg(graph_of("t", ["a"], members))))


def test_every_status_has_a_look():
    """No status is without words, and counts are told in one order."""
    assert set(LOOKS) == set(TaskStatus)
    assert all(look.sign or look is Look.WAITING for look in Look)
    counts = {TaskStatus.INSTANTIATED: 2, TaskStatus.QUEUED: 1, TaskStatus.DONE: 1000, TaskStatus.ERROR_FATAL: 0}
    assert told(by_look(counts)) == "1,000 done, 3 queued"
