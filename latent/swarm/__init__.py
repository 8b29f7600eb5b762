"""Workflows: a DAG of builds that can be resumed. Who writes one needs ``Workflow`` and what it gives."""

from latent.swarm.workflow import Array, Task, Workflow

__all__ = ["Array", "Task", "Workflow"]
