"""What somebody writes down is what is stored, and all that is wrong with it is told before."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from latent.errors import ConfigError, WorkflowError
from latent.swarm import Task, Workflow
from latent.swarm import binding as binding_module
from latent.swarm.binding import bind
from latent.swarm.values import ArrayDefinition, TaskDefinition
from tests.swarm.fake import Controller
from tests.swarm.kit import answer


def mistakes(workflow: Workflow) -> list[str]:
    """What `definition` finds wrong, without the places in this file."""
    with pytest.raises(ConfigError) as caught:
        workflow.definition()
    return [re.sub(rf"^{re.escape(__file__)}:\d+: ", "LINE: ", error) for error in caught.value.errors]


def pipeline(name: str = "sequence", samples: int = 3) -> Workflow:
    workflow = Workflow(name, max_running=20)
    align = workflow.array("align", "bwa", resources={"memory": 2048}, scale={"memory": 0.5}, max_running=8)
    merge = workflow.array("merge", template="merge", max_attempts=1).task("all")
    for number in range(samples):
        merge.after(align.task(f"s{number}", {"sample": number}, labels={"os": "linux"}, resources={"timeout": 60}))
    return workflow


def test_a_workflow_becomes_arrays_tasks_and_edges() -> None:
    """Arrays and tasks keep the order in which they were written, and edges are positions."""
    workflow = pipeline()
    definition = workflow.definition()
    assert (definition.name, definition.tasks, definition.max_running, definition.fail_fast) == ("sequence", 4, 20, False)
    assert definition.arrays == (
        ArrayDefinition(name="align", template="bwa", resources={"memory": 2048}, scale={"memory": 0.5}, max_running=8),
        ArrayDefinition(name="merge", template="merge"),
    )
    tasks = workflow.task_definitions()
    assert tasks[0] == TaskDefinition(1, "all", (), 1)
    assert tasks[1] == TaskDefinition(0, "s0", (0,), 3, {"sample": 0}, {"os": "linux"}, {"timeout": 60})
    assert workflow.task_definitions(1, 2) == tasks[1:3]


def test_a_task_is_after_tasks_arrays_and_lists_of_tasks() -> None:
    """`after` takes what there is, counts a task once, and gives the task back."""
    workflow = Workflow("w")
    first, second = workflow.array("first", "t"), workflow.array("second", "t")
    tasks = [first.task(name) for name in "abc"]
    last = second.task("last")
    assert last.after(first).after(tasks[0], tasks[1:], (task for task in tasks)).after() is last
    assert list(first) == tasks
    assert len(first) == 3
    assert {task.definition().downstream for task in tasks} == {(3,)}


def test_the_same_workflow_has_the_same_digest() -> None:
    """The order in which edges and the names of properties were written does not matter."""

    def written(turned: bool) -> str:
        workflow = Workflow("w")
        array = workflow.array("a", "t", properties={"y": 1, "x": 2} if turned else {"x": 2, "y": 1})
        a, b, c = (array.task(name) for name in "abc")
        for other in (b, a) if turned else (a, b, a):
            c.after(other)
        return workflow.definition().digest

    assert written(True) == written(False)
    assert pipeline().definition().digest == pipeline().definition().digest


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.array("more", "t"),
        lambda w: w.arrays[0].task("more"),
        lambda w: w.tasks[1].after(w.tasks[2]),
        lambda w: setattr(w, "fail_fast", True),
        lambda w: setattr(w, "max_running", 21),
        lambda w: setattr(w, "name", "other"),
        lambda w: setattr(w.tasks[1], "properties", {"sample": 7}),
        lambda w: setattr(w.tasks[1], "labels", {"os": "bsd"}),
        lambda w: setattr(w.tasks[1], "resources", {"timeout": 61}),
        lambda w: setattr(w.tasks[1], "max_attempts", 4),
    ],
)
def test_whatever_is_different_changes_the_digest(change: Callable[[Workflow], object]) -> None:
    """A workflow with anything else in it is another workflow."""
    changed = pipeline()
    change(changed)
    assert changed.definition().digest != pipeline().definition().digest


def test_an_empty_workflow_is_refused() -> None:
    """A workflow without tasks is a mistake; an array without tasks is not."""
    workflow = Workflow("nothing")
    array = workflow.array("none", "t")
    assert mistakes(workflow) == ["workflow 'nothing' has no tasks; add some with wf.array(...).task(...)"]
    workflow.array("some", "t").task("x").after(array)
    assert workflow.definition().tasks == 1


def test_all_mistakes_are_told_at_once_with_line_array_and_task() -> None:
    """Names twice, values of the wrong kind, tasks of others: one list, in the order of the file."""
    stranger = Workflow("other").array("theirs", "t").task("x")
    workflow = Workflow("w", max_running=0, fail_fast="yes")  # type: ignore[arg-type]
    align = workflow.array("align", "", labels={"size": 3}, resources={"memory": -1}, max_running=True)  # type: ignore[dict-item]
    workflow.array("align", "t", fallbacks={"size": "big"}, priority=1.5, scale={"memory": float("nan")})  # type: ignore[arg-type,dict-item]
    one = align.task("one", {"x": {1, 2}}, max_attempts=0)
    one.after(stranger, "two", [3], None)  # type: ignore[arg-type,list-item]
    align.task("one")
    align.task("two", {"cpus": 2}, resources={"cpus": 4, "timeout": 0})
    align.task(7)  # type: ignore[arg-type]
    told = mistakes(workflow)
    assert told == [
        "LINE: workflow 'w': max_running is 0; write a whole number, 1 or more",
        "LINE: workflow 'w': fail_fast is a str, 'yes'; write True or False",
        "LINE: array 'align': template is empty; give it a name",
        "LINE: array 'align': labels: the value of label 'size' is an int, 3; labels are strings, put it in quotes",
        "LINE: array 'align': resources: 'memory' is -1; write a number from 0 to 1e+15",
        "LINE: array 'align': max_running is True; write a whole number, 1 or more",
        "LINE: array 'align': there is one of this name already; choose another name",
        "LINE: array 'align': scale: 'memory' is nan; write a number from 0 to 1e+15",
        "LINE: array 'align': fallbacks is a dict, {'size': 'big'}; write a list of labels, [{'size': 'big'}] for example",
        "LINE: array 'align': priority is 1.5; write a whole number, -2147483647 or more",
        "LINE: task align/one: properties: property 'x' is a set, {1, 2}; "
        "properties are stored as JSON: use strings, numbers, booleans, None, lists and dicts",
        "LINE: task align/one: max_attempts is 0; write a whole number, 1 or more",
        "LINE: task align/one: it is after theirs/x of workflow 'other', which is not in this one; "
        "tasks wait for tasks of their own workflow",
        "LINE: task align/one: it is after 'two', a str, which is no task; give what array.task(...) returned",
        "LINE: task align/one: it is after 3, an int, which is no task; give what array.task(...) returned",
        "LINE: task align/one: it is after None, None, which is no task; give what array.task(...) returned",
        "LINE: task align/one: there is one of this name already; choose another name",
        "LINE: task align/two: resources: 'timeout' is 0; write a number of seconds above 0, or leave it out for the builder's",
        "LINE: task align/7: its name is an int, 7, not a string; give it a name",
    ]


def test_a_mistake_names_the_line_of_the_file_that_made_it() -> None:
    """Not a line of latent's own, however deep the call."""
    workflow = Workflow("w")
    array = workflow.array("a", "t")
    text = "def make(array):\n    return array.task('x', max_attempts=-1)\n\nmake(array)\n"
    exec(compile(text, "pipeline.py", "exec"), {"array": array})
    assert mistakes(workflow) == ["pipeline.py:2: task a/x: max_attempts is -1; write a whole number, 1 or more"]


def test_a_name_is_a_property_or_a_resource() -> None:
    """Resources become properties of the build, so the same name in both would say two things."""
    workflow = Workflow("w")
    array = workflow.array("a", "t", properties={"memory": 1}, resources={"memory": 2})
    array.task("x")
    workflow.array("b", "t", resources={"memory": 2}).task("y", {"memory": 3})
    what = "'memory' is both a property and a resource; resources become properties of the build, so give it once"
    assert mistakes(workflow) == [f"LINE: array 'a': {what}", f"LINE: task b/y: {what}"]


def test_what_is_scaled_has_to_be_there() -> None:
    """A name in `scale` or `most` that no task has is a slip; one that only a task has is not."""
    workflow = Workflow("w")
    workflow.array("a", "t", resources={"memory": 2}, scale={"memroy": 0.5}, most={"memory": 9, "timeout": 9}).task(
        "x", resources={"timeout": 5}
    )
    assert mistakes(workflow) == ["array 'a': scale names 'memroy', which none of its tasks has; did you mean 'memory'?"]


def test_a_circle_is_told_in_order() -> None:
    """Each circle is told as its tasks wait for one another; a task can be one by itself."""
    workflow = Workflow("w")
    array = workflow.array("a", "t")
    one, two, three, alone, fine = (array.task(name) for name in ("1", "2", "3", "alone", "fine"))
    one.after(three)
    three.after(two)
    two.after(one)
    alone.after(alone, three)
    fine.after(alone)
    rest = "one of these has to start without the next"
    assert mistakes(workflow) == [
        f"tasks that wait for one another: a/1 after a/3 after a/2 after a/1; {rest}",
        f"tasks that wait for one another: a/alone after a/alone; {rest}",
    ]


def test_a_long_circle_is_told_in_short() -> None:
    """Who reads it needs its ends, not its thousand tasks."""
    workflow = Workflow("w")
    array = workflow.array("a", "t")
    tasks = [array.task(f"{number:04}") for number in range(1000)]
    for before, after in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
        after.after(before)
    [told] = mistakes(workflow)
    assert "a/0000 after a/0999 after a/0998" in told
    assert "(981 more)" in told
    assert told.endswith("a/0001 after a/0000; one of these has to start without the next")


def test_very_many_mistakes_are_counted() -> None:
    """A loop that is wrong a thousand times does not fill the screen."""
    workflow = Workflow("w")
    array = workflow.array("a", "t")
    for number in range(1000):
        array.task(f"x{number}", max_attempts=0)
    told = mistakes(workflow)
    assert len(told) == 101
    assert told[-1] == "and 900 more mistakes of the same workflow"


# --- into the store ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding_module, "CHUNK_SIZE", 3)


@pytest.mark.usefixtures("small_chunks")
def test_binding_stores_it_in_chunks_once() -> None:
    """The same workflow has the same ids, however often it is bound; another one has others."""
    controller = Controller(Clock())
    first, again, other = pipeline(samples=7), pipeline(samples=7), pipeline("other")
    bound = answer(bind(controller, first))
    assert controller.calls == ["bind", "add_tasks", "add_tasks", "add_tasks"]
    assert (bound.workflow_id, bound.first_task, bound.arrays, bound.tasks) == (1, 1, (1, 2), 8)
    assert first.bound == bound
    assert answer(bind(controller, again)) == bound
    assert answer(bind(controller, other)).first_task == 9
    assert [controller.label(task) for task in controller.task.values()][:3] == ["merge/all", "align/s0", "align/s1"]


@pytest.mark.usefixtures("small_chunks")
def test_binding_goes_on_where_it_ended() -> None:
    """Who died after the second chunk stores the third."""
    controller = Controller(Clock())
    workflow = pipeline(samples=7)
    definition = workflow.definition()
    answer(controller.bind(definition))
    answer(controller.add_tasks(1, 0, workflow.task_definitions(0, 6)))
    controller.calls.clear()
    assert answer(bind(controller, workflow)).tasks == 8
    assert controller.calls == ["bind", "add_tasks"]


def test_nothing_is_stored_of_what_is_wrong() -> None:
    """Mistakes are found before anybody is asked anything."""
    controller = Controller(Clock())
    with pytest.raises(ConfigError, match="has no tasks"):
        answer(bind(controller, Workflow("w")))
    assert controller.calls == []


def test_a_store_that_takes_nothing_is_not_asked_for_ever() -> None:
    """An answer that no task was stored ends the binding."""
    controller = Controller(Clock())
    workflow = pipeline()
    bound = answer(controller.bind(workflow.definition()))

    async def nothing(*args: object) -> object:
        return bound

    controller.add_tasks = nothing  # type: ignore[method-assign,assignment]
    with pytest.raises(WorkflowError, match="does not grow beyond 0 tasks"):
        answer(bind(controller, workflow))


def test_things_say_what_they_are() -> None:
    """For whoever prints one."""
    task: Task = pipeline().tasks[1]
    assert (repr(task), repr(task.array), task.label) == ("<task align/s0>", "<array align>", "align/s0")
