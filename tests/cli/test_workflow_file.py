"""FILE.py of `latent workflow`: what is wrong with it is told with file, line and remedy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from latent.cli.exits import CliError, ExitCode
from latent.cli.workflow_file import MODULE, load

GOOD = """
from latent.swarm import Workflow

wf = Workflow("nightly")
first = wf.array("build", template="build").task("all")
wf.array("test", template="test").task("unit").after(first)
"""


@pytest.fixture(autouse=True)
def imports_as_before() -> Iterator[None]:
    """A file brings its directory to ``sys.path``, and itself and what is beside it into the process's modules."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name == MODULE or name.startswith("beside_"):
            del sys.modules[name]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "flow.py"
    path.write_text(dedent(text))
    return path


def refused(path: Path, text: str | None = None) -> str:
    """What is said of a file that is wrong; it is one message without a traceback, with the code for a wrong configuration."""
    if text is not None:
        path = write(path, text)
    with pytest.raises(CliError) as caught:
        load(path)
    assert caught.value.code is ExitCode.CONFIG
    assert caught.value.remedy or "; " in caught.value.message
    told = f"{caught.value.message}; {caught.value.remedy}"
    assert "Traceback" not in told
    return told.replace(str(path.parent) + "/", "")


def test_the_workflow_of_a_file(tmp_path):
    """The one workflow is found whatever it is called; imports find what is beside the file; main is not run."""
    (tmp_path / "beside_it.py").write_text("NAMES = ['a', 'b']\n")
    path = write(
        tmp_path,
        """
        from dataclasses import dataclass
        from pathlib import Path

        from beside_it import NAMES
        from latent.swarm import Workflow

        @dataclass
        class Sample:
            name: str

        pipeline = also = Workflow("samples")
        array = pipeline.array("align", template="align", properties={"from": Path(__file__).name})
        for sample in map(Sample, NAMES):
            array.task(sample.name)

        if __name__ == "__main__":
            raise SystemExit("not run")
        """,
    )
    workflow, definition = load(path)
    assert [task.label for task in workflow.tasks] == ["align/a", "align/b"]
    assert (definition.name, definition.tasks) == ("samples", 2)
    assert definition.arrays[0].properties == {"from": "flow.py"}


def test_another_name_makes_another_workflow(tmp_path):
    """The same file under another name has another digest."""
    path = write(tmp_path, GOOD)
    (_, first), (_, again), (_, other) = load(path), load(path), load(path, "weekly")
    assert first.digest == again.digest != other.digest
    assert other.name == "weekly"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import latent\n", "flow.py: there is no workflow in it; write wf = Workflow("),
        ("def broken(:\n    pass\n", "flow.py:1: invalid syntax; correct the syntax, nothing of the file was run"),
        ("x = 1\n\ny = 1 / 0\n", "flow.py:3: ZeroDivisionError: division by zero; correct it, the file stopped here"),
        ("x = 1\ny = naem\n", "flow.py:2: the name 'naem' is not defined; assign it above this line, or import it"),
        ("import no_such_module\n", "flow.py:1: ModuleNotFoundError: No module named 'no_such_module'; correct the name"),
        ("import sys\nsys.exit(3)\n", "flow.py:2: the file ends the program (sys.exit)"),
        ("open('/no/such/file')\n", "flow.py:1: FileNotFoundError"),
        ("a = 'x\0y'\n", "source code string cannot contain null bytes"),
        ("def f():\n    f()\nf()\n", "flow.py:2: RecursionError"),
        (GOOD.replace('"nightly"', '"nightly", colour="red"'), "flow.py:4: TypeError"),
        ('from latent.swarm import Workflow\nwf = Workflow("empty")\n', "workflow 'empty' has no tasks; add some with"),
        (GOOD + "first.after('unit')\n", "flow.py:7: task build/all: it is after 'unit'"),
    ],
)
def test_a_wrong_file(tmp_path, text, told):
    """Each mistake is told with its line."""
    assert told in refused(tmp_path, text)


def test_where_it_happened_elsewhere(tmp_path):
    """An error in a module beside the file is told with both places."""
    (tmp_path / "beside_broken.py").write_text("def read():\n    raise ValueError('no samples here')\n")
    told = refused(tmp_path, "import beside_broken\n\nbeside_broken.read()\n")
    assert "flow.py:3: ValueError: no samples here (in beside_broken.py line 2); correct it" in told


def test_two_workflows(tmp_path):
    """Both are named with their lines."""
    told = refused(tmp_path, GOOD + '\nother = Workflow("other")\nboth = [wf, other]\n')
    assert "there are 2 workflows in it: wf (flow.py:4), other (flow.py:8); give each a file of its own" in told


def test_a_circle(tmp_path):
    """Tasks that wait for themselves through others are named in the order of the waiting."""
    told = refused(
        tmp_path,
        """
        from latent.swarm import Workflow

        wf = Workflow("round")
        one, two, three = (wf.array("a", template="x").task(name) if name == "1" else wf.arrays[0].task(name) for name in "123")
        two.after(one)
        three.after(two)
        one.after(three)
        """,
    )
    assert "tasks that wait for one another: a/1 after a/3 after a/2 after a/1" in told


def test_all_mistakes_of_the_workflow_at_once(tmp_path):
    """One mistake does not hide the next."""
    told = refused(
        tmp_path,
        """
        from latent.swarm import Workflow

        wf = Workflow("many", max_running=0)
        a = wf.array("a", template="x", scale={"memory": 1})
        a.task("1")
        a.task("1")
        """,
    )
    assert told.startswith("flow.py has 3 errors:")
    for line in (4, 7):
        assert f"flow.py:{line}: " in told


def test_no_file(tmp_path):
    """A missing file, and a directory."""
    assert "flow.py: there is no such file" in refused(tmp_path / "flow.py")
    assert "is a directory" in refused(tmp_path)
