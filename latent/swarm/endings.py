"""Why a run can't go on, in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from latent.swarm.circles import circles, told
from latent.swarm.listener import Failed
from latent.swarm.state import SwarmState, SwarmTask
from latent.swarm.statuses import TaskStatus

_SHOWN = 5


def why_stuck(state: SwarmState, failures: Mapping[int, Failed]) -> str:
    """Nothing runs and nothing can be queued, but not all is done: which tasks failed, what waits for those, what else waits."""
    failed = state.task_status_map[TaskStatus.ERROR_FATAL]
    behind = state.behind(failed)
    done = state.task_status_map[TaskStatus.DONE]
    wedged = [task for task in state.tasks.values() if task not in behind and task not in failed and task not in done]
    said = []
    if failed:
        said.append(why_failed(failed, failures))
    if behind:
        said.append(f"{_count(behind, 'task')} behind that could not begin")
    if wedged:
        said.append(_why_wedged(state, wedged))
    return "; ".join(said)


def why_failed(failed: Collection[SwarmTask], failures: Mapping[int, Failed]) -> str:
    """``2 tasks failed: align/a (build 12: exit code 1), align/b (...)``."""
    named = [_failed(task, failures.get(task.id)) for task in sorted(failed, key=lambda task: task.id)[:_SHOWN]]
    return f"{_count(failed, 'task')} failed: {_some(named, len(failed))}"


def _failed(task: SwarmTask, failure: Failed | None) -> str:
    if failure is None:
        return task.label
    build = "" if failure.build_id is None else f"build {failure.build_id}: "
    return f"{task.label} ({build}{failure.reason or 'no reason was given'})"


def _why_wedged(state: SwarmState, wedged: list[SwarmTask]) -> str:
    """The stored DAG itself is at fault: no order of its tasks is possible."""
    position = {task: number for number, task in enumerate(wedged)}
    ahead = [[position[task] for task in one.downstream if task in position] for one in wedged]
    if round_about := circles(ahead):
        named = "; ".join(told([wedged[number].label for number in circle]) for circle in round_about[:_SHOWN])
        return f"the workflow is wedged: {_count(wedged, 'task')} wait for one another for ever: {named}"
    named = ", ".join(f"{task.label} (for {task.upstream - task.upstream_done} of {task.upstream})" for task in wedged[:_SHOWN])
    return f"the workflow is wedged: {_count(wedged, 'task')} wait for tasks that nothing will carry out: {named}"


def _some(named: list[str], count: int) -> str:
    return ", ".join(named) + (f" and {count - len(named)} more" if count > len(named) else "")


def _count(things: Collection[object], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"
