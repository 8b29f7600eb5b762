"""The commands runs and dispatch: with a controller, with its database alone, and with a store of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import define, evolve
from click.testing import CliRunner
from pytest_twisted import ensureDeferred

from latent.cli.exits import ExitCode
from latent.cli.main import cli
from latent.errors import ConfigError
from latent.model import Dispatch, Result, Run, RunStatus
from latent.store.folders import hash_of
from latent.store.owners import this_process
from latent.store.run_stores import open_runs
from latent.store.runs import MachineBusy, PrepareOutcome, RunsRefused, to_json
from latent.store.runs_json import JsonRunStore

FAILED = Run(
    id="1",
    machine="m1",
    test_dir="/t",
    test_dir_hash="h",
    status=RunStatus.FAILED,
    exit_code=3,
    started_at=1_780_315_200.0,
    ended_at=1_780_315_201.25,
    error_code="failure",
    error_msg="step make: exit code 3",
    batch_id="nightly",
    plan_entry="smoke",
)
RUNNING = Run(id="2", machine="m2", status=RunStatus.RUNNING, started_at=1_780_315_200.5)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "tests of mine"
    made.mkdir()
    (made / "smoke.sh").write_text("true\n")
    return made


# --- with a controller -------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_runs_are_listed_and_shown(latent, world):
    """In the order of their creation; --json prints the records."""
    world.controller.records.kept = [FAILED, RUNNING]
    table = (await latent("runs", "list")).output.splitlines()
    assert table[0].split() == ["RUN", "MACHINE", "STATUS", "EXIT", "STARTED", "TOOK", "DIRECTORY", "BATCH", "ERROR"]
    assert [line.split()[:3] for line in table[1:]] == [["1", "m1", "failed"], ["2", "m2", "running"]]
    assert table[1].endswith("nightly/smoke  failure: step make: exit code 3")
    only = await latent("runs", "list", "--machine", "m2", "--status", "running", "--status", "pending", "--json")
    assert json.loads(only.output)["runs"] == [json.loads(to_json(RUNNING))]
    assert (await latent("runs", "list", "--machine", "m3")).output == "no runs of that kind\n"
    shown = (await latent("runs", "show", "1")).output
    assert "exit code: 3\n" in shown
    assert "entry:     smoke\n" in shown
    assert json.loads((await latent("runs", "show", "2", "--json")).output) == json.loads(to_json(RUNNING))
    missing = await latent("runs", "show", "9/../x")
    assert (missing.exit_code, missing.output.splitlines()[0]) == (ExitCode.NOT_FOUND, "latent: there is no run 9/../x")


@ensureDeferred
async def test_an_export_is_taken_in_elsewhere(latent, world, tmp_path):
    """One record a line, the bytes those of the record; one that was not over is interrupted where it is taken in."""
    world.controller.records.kept = [FAILED, RUNNING]
    exported = (await latent("runs", "export")).output
    assert exported == f"{to_json(FAILED)}\n{to_json(RUNNING)}\n"
    (tmp_path / "e").write_text(exported)
    address = str(tmp_path / "elsewhere")
    result = await latent("runs", "import", str(tmp_path / "e"), "--store", address)
    assert result.output == "2 runs imported\n"
    ended = evolve(RUNNING, status=RunStatus.INTERRUPTED, error_code="imported", error_msg="it was running when it was exported")
    assert JsonRunStore(Path(address)).list() == [FAILED, ended]
    again = await latent("runs", "import", str(tmp_path / "e"), env={"LATENT_RUNS": address})
    assert again.output == "0 runs imported, 2 were here already\n"
    back = await latent("runs", "import", "--new-ids", str(tmp_path / "e"), "--json")
    assert [run["id"] for run in json.loads(back.output)["runs"]] == ["3", "4"]
    world.controller.records.refusal = RunsRefused("run 1 is here already; import them with new ids")
    refused = await latent("runs", "import", str(tmp_path / "e"))
    assert (refused.exit_code, refused.output.splitlines()[1]) == (ExitCode.REFUSED, "  import them with new ids")


@ensureDeferred
async def test_a_large_export_comes_in_pages(latent, world, monkeypatch):
    world.controller.records.kept = [evolve(FAILED, id=str(number)) for number in range(1, 8)]
    monkeypatch.setattr("latent.cli.runs.PAGE", 3)
    exported = (await latent("runs", "export")).output
    assert [json.loads(line)["id"] for line in exported.splitlines()] == list("1234567")


@ensureDeferred
async def test_a_large_import_goes_in_parts(latent, world, tmp_path, monkeypatch):
    """So many records at a time, and so many bytes, that the controller takes them."""
    monkeypatch.setattr("latent.cli.records.AT_ONCE", 3)
    large = [evolve(FAILED, id=str(number), error_msg="é" * 100_000) for number in range(1, 4)]
    small = [evolve(FAILED, id=str(number)) for number in range(4, 12)]
    (tmp_path / "e").write_text("".join(f"{to_json(run)}\n" for run in (*large, *small)))
    result = await latent("runs", "import", str(tmp_path / "e"))
    assert result.output == "11 runs imported\n"
    assert world.controller.records.kept == [*large, *small]


@ensureDeferred
async def test_a_dispatch_goes_to_the_controller(latent, world, folder):
    """With the hash of the directory; the answer tells the run, also one that was there."""
    records = world.controller.records
    records.build, records.run = world.controller.store(), RUNNING
    words = ["dispatch", "--machine", "m2", "--dir", str(folder), "--batch", "b", "--entry", "e", "--timeout", "9"]
    result = await latent(*words, "--", "./smoke.sh", "a b")
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "build 1 is dispatched to m2: run 2")
    [request] = records.dispatched
    about = Dispatch(machine="m2", test_dir=str(folder), test_dir_hash=hash_of(folder), batch_id="b", plan_entry="e")
    assert (request.dispatch, request.timeout) == (about, 9.0)
    assert (request.steps[0].command, request.steps[0].workdir) == (("./smoke.sh", "a b"), str(folder))
    records.outcome = PrepareOutcome.REUSE
    again = await latent(*words, "--workdir", "/w", "--", "x")
    assert again.output.splitlines()[0] == "m2 has it already, as build 1: run 2 (running)"
    assert records.dispatched[1].steps[0].workdir == "/w"
    records.build = None
    assert (await latent(*words, "--", "x")).output == "m2 has it already, as another process's: run 2 (running)\n"
    assert json.loads((await latent(*words, "--json", "--", "x")).output)["outcome"] == "reuse"


@ensureDeferred
async def test_who_waits_for_a_dispatch_gets_its_result(latent, world, folder):
    """The exit code is that of the build, or of another process's run."""
    records = world.controller.records
    records.build = world.controller.store()
    world.controller.finish(1, Result.FAILURE, "no")
    words = ["dispatch", "--machine", "m1", "--dir", str(folder), "--wait", "--", "x"]
    assert (await latent(*words)).exit_code == ExitCode.FAILURE
    records.build, records.run, records.kept = None, FAILED, [FAILED]
    result = await latent(*words)
    assert result.exit_code == ExitCode.FAILURE
    assert result.output == "run 1 on m1: failed after 1.2s: step make: exit code 3\n"


@ensureDeferred
async def test_a_busy_machine_has_an_exit_code_of_its_own(latent, world, folder):
    words = ["dispatch", "--machine", "m2", "--dir", str(folder), "--", "x"]
    world.controller.records.refusal = MachineBusy(RUNNING, 7)
    result = await latent(*words)
    assert result.exit_code == ExitCode.BUSY
    assert result.output == "latent: machine m2 is busy with run 2 of build 7 (running)\n  wait until it is over\n"
    world.controller.records.refusal = ConfigError("no; really not")
    assert (await latent(*words)).exit_code == ExitCode.REFUSED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dispatch", "--dir", ".", "--", "x"], "Missing option '--machine'"),
        (["dispatch", "--machine", "m", "--", "x"], "Missing option '--dir'"),
        (["dispatch", "--machine", "m", "--dir", "."], "there is no command after --"),
        (["dispatch", "--machine", "m", "--dir", "nowhere", "--", "x"], "Directory 'nowhere' does not exist"),
        (["runs", "list", "--status", "odd"], "'odd' is not one of"),
        (["runs", "odd"], "No such command"),
    ],
)
def test_a_wrong_command_line_is_refused(words, said):
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, said in result.output) == (ExitCode.USAGE, True), result.output


# --- without one -------------------------------------------------------------------------------------------------------------


@define
class Shell:
    """The command line as processes, in a directory."""

    basedir: Path

    def start(self, *words):
        mine = {name: value for name, value in os.environ.items() if not name.startswith("LATENT_") or name == "LATENT_TEST_RUN"}
        return subprocess.Popen(
            [sys.executable, "-m", "latent.cli", *words],
            env={**mine, "PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.basedir,
        )

    def run(self, *words):
        """Its exit code, and what it printed."""
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        return process.returncode, out + err

    def dispatch(self, folder, *words):
        return self.start("dispatch", "--store", "runs", "--machine", "m1", "--dir", str(folder), *words)


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def end_of(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def test_the_controllers_database_is_read_while_none_runs(shell, tmp_path):
    """master.cfg says where it is; without one there is nobody to ask."""
    assert shell.run("runs", "list") == (
        ExitCode.NOT_RUNNING,
        f"latent: no controller runs in {tmp_path}, and there is no master.cfg\n"
        "  name its directory: latent -C DIRECTORY ..., or set LATENT_BASEDIR\n",
    )
    (tmp_path / "master.cfg").write_text(
        "from latent.plugins import worker\nc['workers'] = [worker.Worker('m1', 'secret-secret')]\n"
    )
    (tmp_path / "e").write_text(to_json(FAILED) + "\n")
    assert shell.run("runs", "import", "e") == (0, "1 run imported\n")
    code, out = shell.run("runs", "list")
    assert (code, out.splitlines()[1].split()[:4]) == (0, ["1", "m1", "failed", "3"])
    store = open_runs(f"sqlite:///{tmp_path}/state/latent.sqlite")
    assert store.list() == [FAILED]
    store.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{}\n", "e: line 1: the record of a run is damaged: it has no 'exit_code'"),
        (b"[7]", "e: record 1: the record of a run is damaged: it should be an object"),
        (b"[", "e: Expecting value"),
        (b"\xff", "e: it is not UTF-8"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path, text, words):
    (tmp_path / "e").write_bytes(text)
    result = CliRunner().invoke(cli, ["runs", "import", str(tmp_path / "e"), "--store", str(tmp_path / "runs")])
    assert result.exit_code == ExitCode.USAGE
    assert words in result.output


def test_a_damaged_store_is_told(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "runs.json").write_text("{")
    result = CliRunner().invoke(cli, ["runs", "list", "--store", str(tmp_path / "runs")])
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "is damaged" in result.output
    assert "restore it from a backup" in result.output


def test_a_dispatch_is_carried_out_here(shell, folder):
    """In the directory; its record has the end, and the exit code is that of the result."""
    code, out = end_of(shell.dispatch(folder, "--", "pwd; exit 3"))
    assert (code, out.splitlines()[0]) == (ExitCode.FAILURE, str(folder))
    assert "run 1 on m1: failed after" in out.splitlines()[1]
    code, out = end_of(shell.dispatch(folder, "--json", "--batch", "b", "--", sys.executable, "-c", "print('noise')"))
    assert code == 0
    record = json.loads(out.removesuffix("noise\n"))
    assert (record["id"], record["status"], record["exit_code"], record["batch_id"]) == ("2", "completed", 0, "b")
    assert record["test_dir_hash"] == hash_of(folder)
    code, out = end_of(shell.dispatch(folder, "--timeout", "0.2", "--", "sleep 60"))
    assert (code, out.rstrip().endswith("it ran longer than 0.2 s")) == (ExitCode.TIMEOUT, True)
    code, out = end_of(shell.dispatch(folder, "--", "no-such-program", "x"))
    assert (code, "No such file" in out) == (ExitCode.FAILURE, True)
    assert [run.error_code for run in JsonRunStore(shell.basedir / "runs").list()] == ["failure", "", "timeout", "cannot_start"]


def test_the_same_dispatch_again_is_the_running_run(shell, folder):
    """Another is refused, and nothing is stored. SIGTERM ends it with its record."""
    first = shell.dispatch(folder, "--", "echo begun; sleep 600")
    assert first.stdout.readline() == "begun\n"
    assert end_of(shell.dispatch(folder, "--", "x")) == (0, "m1 has it already: run 1 (running)\n")
    other = shell.basedir / "other"
    other.mkdir()
    code, out = end_of(shell.dispatch(other, "--", "x"))
    assert (code, out.splitlines()[0]) == (ExitCode.BUSY, f"latent: machine m1 is busy with run 1 (running, {folder})")
    first.send_signal(signal.SIGTERM)
    code, out = end_of(first)
    assert (code, "its dispatcher was stopped" in out) == (ExitCode.EXCEPTION, True)
    assert [run.status for run in JsonRunStore(shell.basedir / "runs").list()] == [RunStatus.INTERRUPTED]


def test_who_waits_for_the_running_run_gets_its_end(tmp_path, folder, monkeypatch):
    """It is looked at until it is over."""
    store = JsonRunStore(tmp_path / "runs")
    run, _ = store.prepare_atomic("m1", hash_of(folder), lambda: RUNNING, owner=this_process())
    monkeypatch.setattr("latent.cli.dispatch.pause", lambda: store.update(evolve(run, status=RunStatus.TIMEOUT)))
    words = ["dispatch", "--store", str(tmp_path / "runs"), "--machine", "m1", "--dir", str(folder), "--wait", "--json"]
    result = CliRunner().invoke(cli, [*words, "--", "x"])
    assert result.exit_code == ExitCode.TIMEOUT
    assert json.loads(result.output)["id"] == run.id


def test_a_dispatcher_that_is_killed_frees_its_machine(shell, folder, tmp_path):
    """Its command ends with it, and the next dispatch finds the run interrupted."""
    first = shell.dispatch(folder, "--", f"echo $$ > {tmp_path}/pid; echo begun; exec sleep 600")
    assert first.stdout.readline() == "begun\n"
    first.kill()
    # The end of its output is the end of all that wrote to it.
    assert end_of(first)[1] == ""
    code, out = end_of(shell.dispatch(folder, "--", "echo done"))
    assert (code, out.splitlines()[0]) == (0, "done")
    runs = JsonRunStore(shell.basedir / "runs").list()
    assert [(run.status, run.error_code) for run in runs] == [
        (RunStatus.INTERRUPTED, "owner_gone"),
        (RunStatus.COMPLETED, ""),
    ]
