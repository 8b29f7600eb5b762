"""Each client command against a controller: what it prints, and its exit code."""

from __future__ import annotations

import json
import os
import re

import pytest
from pytest_twisted import ensureDeferred

from latent.cli import wait
from latent.cli.exits import ExitCode
from latent.cli.submit import LARGEST
from latent.model import Payload, Result, RunStatus
from latent.store.tasks import TaskOfBuild
from latent.web.service import MAX_BODY
from tests.web.fake_controller import NOW, FakeEntry, FakeHealth, FakeWorker
from tests.web.serving import until


def lines(result):
    """The output, times taken out."""
    return [re.sub(r"\s+", " ", re.sub(r"\d+d \d+h ago", "AGO", line)).strip() for line in result.output.splitlines()]


@ensureDeferred
async def test_submit_tells_the_build_and_how_to_follow_it(latent, world):
    """A command after -- becomes a build; the user learns its number and the next command."""
    result = await latent("submit", "--label", "os=linux", "-p", "a=b=c", "--priority", "2", "--", "make", "--check", "a b")
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "build 1 (-- make --check 'a b') is submitted")
    assert "logs 1 --follow" in result.output
    request = world.controller.known[1].request
    assert request.steps[0].command == ("make", "--check", "a b")
    assert (request.requirements.labels, request.properties, request.priority) == ({"os": "linux"}, {"a": "b=c"}, 2)


@ensureDeferred
async def test_one_word_is_a_shell_command_line(latent, world):
    """One word after -- is for the shell; its JSON is the API's document."""
    result = await latent("submit", "--json", "--name", "tail", "--", "make | tail")
    assert json.loads(result.output)["steps"][0]["command"] == "make | tail"
    assert world.controller.known[1].request.builder == "tail"


@ensureDeferred
async def test_a_payload_goes_as_it_is_and_so_does_its_answer(latent, world, tmp_path):
    """What is in the file is the payload, byte for byte; the answer is written to a file, or to standard output."""
    value = bytes(range(256))
    (tmp_path / "task").write_bytes(value)
    result = await latent("submit", "--payload", str(tmp_path / "task"), "--type-url", "t/my.Task")
    assert result.output.splitlines()[0] == "build 1 (payload my.Task) is submitted"
    assert world.controller.known[1].request.payload == Payload("t/my.Task", value)
    assert "payload:   t/my.Task (256 bytes)" in (await latent("build", "1")).output
    none = await latent("build", "1", "--answer", "-")
    assert (none.exit_code, none.output.splitlines()[0]) == (
        ExitCode.NOT_FOUND,
        "latent: build 1 has no answer yet: it is queued",
    )
    world.controller.answers[1] = (100, Payload("t/my.Answer", value[::-1]))
    result = await latent("build", "1", "--answer", str(tmp_path / "answer"))
    assert result.output == f"{tmp_path / 'answer'}: 256 bytes, t/my.Answer\n"
    assert (tmp_path / "answer").read_bytes() == value[::-1]
    assert (await latent("build", "1", "--answer", "-")).stdout_bytes == value[::-1]
    nowhere = await latent("build", "1", "--answer", str(tmp_path / "none" / "x"))
    assert (nowhere.exit_code, nowhere.output.splitlines()[0]) == (
        ExitCode.USAGE,
        f"latent: {tmp_path / 'none' / 'x'} can't be written: No such file or directory",
    )


@ensureDeferred
async def test_a_payload_has_to_fit_into_a_request(latent, world, tmp_path):
    """The largest that is let through does; a larger one is refused before anything is sent."""
    assert LARGEST * 4 / 3 + 64 * 1024 < MAX_BODY
    for size, code in ((LARGEST, ExitCode.OK), (LARGEST + 1, ExitCode.USAGE)):
        (tmp_path / "large").write_bytes(b"x" * size)
        result = await latent("submit", "--payload", str(tmp_path / "large"), "--type-url", "t/my.Task")
        assert result.exit_code == code, result.output
    assert f"more than {LARGEST} bytes" in result.output
    assert list(world.controller.known) == [1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit"], "give a BUILDER, a command after --, or a --payload"),
        (["submit", "tests", "--", "x"], "give one of the three"),
        (["submit", "--"], "there is no command after --"),
        (["submit", "tests", "--payload", "-", "--type-url", "t"], "give one of the three"),
        (["submit", "--payload", "-"], "give --type-url type"),
        (["submit", "tests", "--type-url", "t"], "give --payload FILE too"),
        (["submit", "tests", "-p", "novalue"], "'novalue' is not NAME=VALUE"),
        (["submit", "tests", "-l", "a=1", "-l", "a=2"], "'a' is given twice"),
        (["submit", "a", "b"], "unexpected extra argument"),
        (["build", "x"], "Invalid value for 'ID'"),
        (["builds", "--state", "odd"], "'odd' is not one of"),
        (["nonsense"], "No such command"),
    ],
)
@ensureDeferred
async def test_a_wrong_command_line_is_refused(latent, world, words, said):
    """A command line that makes no sense ends with code 2 and says why."""
    result = await latent(*words)
    assert result.exit_code == ExitCode.USAGE
    assert said in result.output
    assert not world.controller.known


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Result.SUCCESS, ExitCode.OK),
        (Result.FAILURE, ExitCode.FAILURE),
        (Result.EXCEPTION, ExitCode.EXCEPTION),
        (Result.TIMEOUT, ExitCode.TIMEOUT),
        (Result.CANCELLED, ExitCode.CANCELLED),
    ],
)
@ensureDeferred
async def test_the_exit_code_is_the_builds_result(latent, world, ended, code):
    """Who waits or follows leaves with the code of the build's result."""
    world.controller.finish_at_once = ended
    waited = await latent("submit", "--wait", "--", "x")
    followed = await latent("submit", "--follow", "--", "x")
    rejoined = await latent("build", "--wait", "1")
    assert [waited.exit_code, followed.exit_code, rejoined.exit_code] == [code] * 3
    assert ended.value in waited.output
    assert "hello" in followed.output
    assert "hello" not in waited.output


@ensureDeferred
async def test_following_prints_lines_as_documents_with_json(latent, world):
    """With --json each line is a document, and the last one is the build."""
    world.controller.finish_at_once = Result.SUCCESS
    result = await latent("submit", "--follow", "--json", "--", "x")
    first, last = (json.loads(line) for line in result.output.splitlines())
    assert (first["text"], last["build"]["result"]) == ("hello", "success")


@ensureDeferred
async def test_waiting_outlasts_a_controller_that_is_away(latent, world, monkeypatch):
    """A controller that restarts does not end a wait, and each line of the log is printed once."""
    controller = world.controller
    controller.store()
    run = controller.start_run(1)
    controller.log_line(run, "first")
    monkeypatch.setattr(wait, "AGAIN", 0.01)
    following = latent("logs", "1", "--follow")
    await until(lambda: controller.listening)
    await world.service.stop()
    controller.log_line(run, "second")
    controller.finish(1, Result.SUCCESS)
    await world.service.start()
    result = await following
    assert result.stdout.splitlines() == ["first", "second"]
    assert "the controller is away" in result.stderr
    assert "the controller is back" in result.stderr


def test_patience_ends(monkeypatch):
    """A controller that stays away too long is given up with the last error."""
    from latent.cli.client import NotRunning

    now = [0.0]

    def pause(seconds):
        now[0] += seconds

    patience = wait.Patience(clock=lambda: now[0], pause=pause)
    while now[0] < wait.PATIENCE:
        patience.away(NotRunning("gone", ""))
    with pytest.raises(NotRunning, match="gone"):
        patience.away(NotRunning("gone", ""))


@ensureDeferred
async def test_builds_are_listed(latent, world):
    """The list has what each build is, where it is and why."""
    assert "no builds; submit one" in (await latent("builds")).output
    world.controller.store()
    world.controller.store()
    world.controller.finish(1, Result.FAILURE, "step test: exit code 2")
    assert lines(await latent("builds")) == [
        "ID BUILDER STATE SUBMITTED REASON",
        "2 tests queued AGO",
        "1 tests failure AGO step test: exit code 2",
    ]
    assert (await latent("builds", "--state", "running")).output == "no builds of that kind\n"
    assert [b["id"] for b in json.loads((await latent("builds", "--json", "-n", "1")).output)["builds"]] == [2]


@ensureDeferred
async def test_a_build_is_shown(latent, world):
    """A build is shown with its reason, its runs and the steps of the last."""
    world.controller.store()
    world.controller.start_run(1)
    world.controller.end_run(1, RunStatus.INTERRUPTED)
    world.controller.start_run(1, worker="linux-2", attempt=2)
    world.controller.finish(1, Result.FAILURE, "step test: exit code 2")
    shown = await latent("build", "1")
    said = lines(shown)
    assert "why: step test: exit code 2" in said
    assert "commands: make test" in said
    assert any(line.startswith("100 linux-1#1 interrupted") for line in said)
    assert any(line.startswith("101 linux-2#2 failed") for line in said)
    assert any(line.startswith("test success") for line in said)
    assert json.loads((await latent("build", "1", "--json")).output)["runs"][1]["worker"] == "linux-2"
    missing = await latent("build", "9")
    assert (missing.exit_code, missing.output) == (6, "latent: there is no build 9\n  see `latent builds`\n")


@ensureDeferred
async def test_logs_are_printed_as_they_are(latent, world):
    """A log is the lines of the latest run, or of the one that is asked for."""
    world.controller.store()
    first = world.controller.start_run(1)
    world.controller.log_line(first, "\x1b[31mred\x1b[0m")
    world.controller.end_run(1, RunStatus.INTERRUPTED)
    world.controller.log_line(world.controller.start_run(1), "later")
    assert (await latent("logs", "1")).output == "later\n"
    assert "red" in (await latent("logs", "1", "--run", str(first))).output
    assert json.loads((await latent("logs", "1", "--json")).output)["text"] == "later"
    assert (await latent("logs", "1", "--run", "7")).exit_code == ExitCode.NOT_FOUND


@ensureDeferred
async def test_cancel_and_why(latent, world):
    """Cancelling gives the reason on; why repeats it."""
    world.controller.store()
    assert (await latent("why", "1")).output == "build 1 (tests): queued: it waits for a worker\n"
    assert (await latent("cancel", "1", "--reason", "not needed")).output == "build 1 is cancelled\n"
    assert (await latent("why", "1")).output == "build 1 (tests): cancelled: not needed\n"
    assert json.loads((await latent("why", "1", "--json")).output)["why"] == "not needed"
    world.controller.store()
    world.workflows.known[2] = TaskOfBuild(7, "genomes", 31, "align-3", 2)
    said = "build 2 (tests, attempt 2 at task align-3 of workflow 7, genomes): queued: it waits for a worker\n"
    assert (await latent("why", "2")).output == said
    assert "attempt 2 at task align-3 of workflow 7, genomes" in (await latent("build", "2")).output
    assert json.loads((await latent("why", "2", "--json")).output)["task"]["id"] == 31
    world.controller.finish(2, Result.SUCCESS)
    assert (await latent("cancel", "2")).output == "build 2 had ended before: success\n"


@ensureDeferred
async def test_workers_are_listed(latent, world):
    """The list says what each worker does, and why one takes no builds."""
    assert "no workers" in (await latent("workers")).output
    world.controller.worker_list = [
        FakeWorker(name="a", state="SUBSTANTIATED", attempt=3, builds=[4, 5]),
        FakeWorker(name="b", paused=True, reason="by hand"),
    ]
    said = lines(await latent("workers"))
    assert said[0] == "WORKER KIND STATE SINCE ATTEMPT BUILDS NOTE"
    assert re.fullmatch(r"a ProcessLatentWorker SUBSTANTIATED \S+ \S+ 3 4, 5", said[1])
    assert said[2].endswith("paused; by hand")
    assert json.loads((await latent("workers", "--json")).output)["workers"][0]["attempt"] == 3


@ensureDeferred
async def test_health_tells_by_its_exit_code(latent, world):
    """Health ends with 0 when all is well; else with 1, what is wrong, and the remedy."""
    world.controller.health_list = [FakeHealth(subject="store", ok=True, message="fine")]
    well = await latent("health")
    assert (well.exit_code, well.output) == (0, "all is well (1 thing looked at)\n")
    assert "ok  store: fine" in (await latent("health", "--all")).output
    world.controller.health_list.append(FakeHealth(subject="worker a", ok=False, message="backs off", remedy="wait"))
    ill = await latent("health")
    assert (ill.exit_code, ill.output) == (1, "BAD worker a: backs off\n    wait\n1 of 2 things not well\n")
    assert (await latent("health", "--json")).exit_code == 1


@ensureDeferred
async def test_history_is_told_in_order(latent, world):
    """A worker's history has each event and the state it led to; an unknown worker is not found."""
    world.controller.worker_list = [FakeWorker(name="a/b")]
    assert (await latent("history", "a/b")).output == "nothing has happened to a/b yet\n"
    world.controller.entries["a/b"] = [
        FakeEntry(seq=1, at=NOW, worker="a/b", attempt=1, event="Substantiate", detail={"build": "1"}, state_name="X"),
        FakeEntry(seq=2, at=NOW, worker="a/b", attempt=1, event="Started", detail={}, state_name="Y"),
    ]
    said = lines(await latent("history", "a/b"))
    assert said[0] == "TIME ATTEMPT EVENT STATE DETAIL"
    assert [line.split(" ", 2)[2] for line in said[1:]] == ["1 Substantiate X build=1", "1 Started Y"]
    assert (await latent("history", "c")).exit_code == ExitCode.NOT_FOUND


@ensureDeferred
async def test_a_worker_is_paused_and_taken_back(latent, world):
    """Both commands show the worker; an unknown one is not found."""
    world.controller.worker_list = [FakeWorker(name="a/b")]
    assert lines(await latent("pause", "a/b"))[1].endswith(" paused")
    assert world.controller.worker_list[0].paused
    assert json.loads((await latent("unpause", "a/b", "--json")).output)["paused"] is False
    assert (await latent("pause", "c")).exit_code == ExitCode.NOT_FOUND


@ensureDeferred
async def test_reconfig_tells_changes_or_every_error(latent, world):
    """A reload prints what changed; a wrong configuration ends with code 3 and all of its errors."""
    assert (await latent("reconfig")).output == "worker linux-1: added\n"
    world.changes = []
    assert (await latent("reconfig")).output == "nothing has changed\n"
    world.config_error = "master.cfg:3: no; do"
    one = await latent("reconfig")
    assert (one.exit_code, one.output) == (3, "latent: master.cfg:3: no\n  do\n")
    world.config_error = "master.cfg:3: no; do|master.cfg:9: neither; do that"
    both = await latent("reconfig")
    assert both.exit_code == 3
    assert both.output.splitlines()[1:] == ["  master.cfg:3: no; do", "  master.cfg:9: neither; do that"]


@ensureDeferred
async def test_status_is_one_glance(latent, world):
    """The status has the version, what there is to do, and whether all is well."""
    world.controller.store()
    said = lines(await latent("status"))
    assert any("1 queued" in line for line in said)
    assert any("all is well" in line for line in said)
    assert json.loads((await latent("status", "--json")).output)["pid"] == os.getpid()


@ensureDeferred
async def test_without_a_controller_there_is_one_line_and_a_remedy(latent, tmp_path):
    """No controller is one clear line, and what to do about it, whatever is left of the last one."""
    for command in (["builds"], ["health"], ["submit", "--wait", "--", "x"], ["stop"], ["reconfig"]):
        result = await latent(*command)
        assert result.exit_code == ExitCode.NOT_RUNNING
        assert "there is no master.cfg" in result.output
    (tmp_path / "master.cfg").write_text("")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "token").write_text("t")
    (tmp_path / "state" / "api.json").write_text(json.dumps({"socket": str(tmp_path / "gone"), "url": None, "pid": 1}))
    result = await latent("builds")
    assert (result.exit_code, len(result.output.splitlines())) == (ExitCode.NOT_RUNNING, 2)
    assert "start it: latent" in result.output


@ensureDeferred
async def test_a_controller_is_reached_over_tcp(latent, world):
    """With a URL and a token the same commands go over TCP; a wrong token, port or URL is told apart."""
    url = world.service.address.url
    world.controller.store()
    good = {"LATENT_URL": url, "LATENT_API_TOKEN": "made-up", "LATENT_BASEDIR": "/nonexistent"}
    assert "tests" in (await latent("builds", env=good)).output
    assert (await latent("builds", env={**good, "LATENT_API_TOKEN": "x"})).exit_code == ExitCode.REFUSED
    assert (await latent("builds", env={**good, "LATENT_API_TOKEN": ""})).exit_code == ExitCode.USAGE
    assert (await latent("--url", "127.0.0.1:1", "builds", env=good)).exit_code == ExitCode.USAGE
    await world.service.stop()
    assert (await latent("builds", env=good)).exit_code == ExitCode.NOT_RUNNING
    await world.service.start()


@ensureDeferred
async def test_a_failing_controller_is_unavailable(latent, world):
    """An error of the controller's own is told with its remedy and code 8."""
    world.controller.break_store()
    result = await latent("submit", "--", "x")
    assert (result.exit_code, result.output) == (8, "latent: the disk is full\n  free some space\n")


@ensureDeferred
async def test_checkconfig_lists_every_error(latent, tmp_path):
    """Every mistake is listed with its line; a right file is counted."""
    path = tmp_path / "master.cfg"
    missing = await latent("checkconfig")
    assert missing.exit_code == ExitCode.CONFIG
    path.write_text('c["titel"] = "x"\nc["builder"] = []\n')
    wrong = await latent("checkconfig")
    assert wrong.exit_code == ExitCode.CONFIG
    assert "master.cfg:1:" in wrong.output
    assert "master.cfg:2:" in wrong.output
    assert json.loads((await latent("checkconfig", "--json")).output)["ok"] is False
    path.write_text(
        "from latent.plugins import util, worker\n"
        'c["workers"] = [worker.ProcessLatentWorker("a")]\n'
        'c["builders"] = [util.Builder("b", ["true"])]\n'
    )
    assert (await latent("checkconfig", str(path))).output == f"{path} is right: 1 worker, 1 builder\n"
    assert json.loads((await latent("checkconfig", "--json")).output)["workers"] == ["a"]


@ensureDeferred
async def test_the_help_names_every_command_and_exit_code(latent):
    """The help has a line for each command and each exit code."""
    text = (await latent("--help")).output
    for word in ("start", "stop", "checkconfig", "reconfig", "submit", "builds", "logs", "cancel", "why", "history"):
        assert re.search(rf"^  {word} +\S", text, re.M)
    for code in ExitCode:
        assert re.search(rf"^  {code.value} +\S", text, re.M)
