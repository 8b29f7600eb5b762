"""The workflows of `benchmarks.workflows`, apart from its processes: a FILE.py imports this."""

from __future__ import annotations

from latent.swarm import Task, Workflow

SIDE = 1000
"""Tasks in a layer."""


def layered(name: str, tasks: int) -> Workflow:
    """Layers of `SIDE` tasks, each after two of the layer before; every layer is an array."""
    workflow = Workflow(name)
    before: list[Task] = []
    for layer in range(-(-tasks // SIDE)):
        array = workflow.array(f"layer-{layer:04}", template="nothing")
        made = [array.task(str(number)) for number in range(min(SIDE, tasks - layer * SIDE))]
        for number, task in enumerate(made):
            if before:
                task.after(before[number], before[(number + 1) % len(before)])
        before = made
    return workflow


def chain(name: str, tasks: int) -> Workflow:
    """Each task after the one before."""
    workflow = Workflow(name)
    array = workflow.array("links", template="nothing")
    last = array.task("0")
    for number in range(1, tasks):
        last = array.task(str(number)).after(last)
    return workflow
