"""Workflows: a DAG of builds that can be resumed. Who writes one needs ``Workflow`` and what it gives."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latent.swarm.workflow import Array, Task, Workflow

__all__ = ["Array", "Task", "Workflow"]


def __getattr__(name: str) -> Any:
    # Imported when used: commands that only look at a workflow are quick to start.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from latent.swarm import workflow

    return getattr(workflow, name)
