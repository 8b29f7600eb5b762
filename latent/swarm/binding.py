"""Puts a workflow into the store."""

from __future__ import annotations

from latent.errors import WorkflowError
from latent.swarm.listener import Listener
from latent.swarm.requester import Requester
from latent.swarm.values import Bound
from latent.swarm.workflow import Workflow

CHUNK_SIZE = 5000


async def bind(requester: Requester, workflow: Workflow, listener: Listener | None = None) -> Bound:
    """Store the workflow, chunk by chunk; what is stored of it already is left as it is, so that the same ids come back.

    Raises ConfigError with all mistakes of the workflow, before anything is stored.
    """
    listener = listener or Listener()
    bound = await requester.bind(workflow.definition())
    total = len(workflow.tasks)
    while bound.tasks < total:
        listener.binding(bound.tasks, total)
        first = bound.tasks
        bound = await requester.add_tasks(bound.workflow_id, first, workflow.task_definitions(first, CHUNK_SIZE))
        if bound.tasks <= first:
            raise WorkflowError(f"workflow {bound.workflow_id} does not grow beyond {first} tasks: the controller took no more")
    workflow.bound = bound
    listener.bound(bound)
    return bound
