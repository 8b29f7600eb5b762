"""What an instance is told at its boot: put together as it should be, and really run."""

from __future__ import annotations

import email
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from latent.errors import ConfigError
from latent_ec2.enrolment import command_line
from latent_ec2.userdata import UserData

PATIENCE = 60

MEMBERS = [("one", 1, "token-1"), ("two-2", 12, "token-2"), ("three", 3, "token_3-x")]

AGENT = """#!/bin/sh
echo "agent: $LATENT_WORKER $LATENT_ATTEMPT $LATENT_TOKEN $WORKERNAME $WORKERPASS $LATENT_SERVER [$*]"
trap 'echo "agent: told to stop"; exit 0' TERM
[ -z "$STAY" ] && exit 7
while :; do sleep 0.1; done
"""
"""A stand-in for an agent: says what it was told."""


def composed(members: Any = MEMBERS[:1], **more: Any) -> str:
    given = {
        "text": None,
        "how": "script",
        "variables": {"LATENT_SERVER": "ci.example:9989"},
        "command": "exec env agent",
        **more,
    }
    return UserData(**given)(members)


class Metadata(BaseHTTPRequestHandler):
    """IMDSv2: nothing without a session's token."""

    answers: dict[str, str]

    def do_PUT(self) -> None:
        self.answer("session-token" if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        asked = self.path.removeprefix("/latest/")
        good = self.headers.get("X-aws-ec2-metadata-token") == "session-token"
        self.answer(self.answers.get(asked) if good else None)

    def answer(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        body = (text or "").encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def metadata(**answers: str) -> Iterator[tuple[str, dict[str, str]]]:
    """A metadata service: its URL, and what it answers, by path ("__" for "/", "_" for "-")."""
    known = {path.replace("__", "/").replace("_", "-"): text for path, text in answers.items()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("One", (Metadata,), {"answers": known}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Booted:
    """A script that runs as at an instance's boot."""

    def __init__(self, tmp_path: Path, script: str, url: str, **environment: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        agent = tmp_path / "bin" / "agent"
        agent.write_text(AGENT)
        agent.chmod(0o755)
        path = tmp_path / "user-data"
        path.write_text(script)
        path.chmod(0o755)
        self.process = subprocess.Popen(
            [str(path)],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "AWS_EC2_METADATA_SERVICE_ENDPOINT": url, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def rest(self) -> list[str]:
        """What it printed until it and all that it has started were over."""
        out, _ = self.process.communicate(timeout=PATIENCE)
        return out.splitlines()

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.parametrize("members", [MEMBERS[:1], MEMBERS])
@pytest.mark.parametrize("spot", [True, False])
@pytest.mark.parametrize("hibernates", [True, False])
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_shells_can_read_it(members: Any, spot: bool, hibernates: bool, shell: str) -> None:
    """Whatever it has in it."""
    script = composed(members, spot=spot, text="#!/bin/sh\n:\n")
    if hibernates:
        script = script_of(composed(members, how="cloud-init", stop_mode="hibernate"))
    done = subprocess.run([*shell.split(), "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def script_of(text: str) -> str:
    (*_, last) = email.message_from_string(text).walk()
    assert last.get_content_type() == "text/x-shellscript"
    return str(last.get_payload(decode=True).decode())  # type: ignore[union-attr]


def test_an_instance_of_its_own(tmp_path: Path) -> None:
    """With one member there is nothing to ask for: no metadata are needed."""
    booted = Booted(tmp_path, composed(command=command_line(["agent", "a b", "$HOME"])), "http://127.0.0.1:9")
    assert booted.rest() == [
        "latent: this is attempt 1 of worker one",
        "agent: one 1 token-1 one token-1 ci.example:9989 [a b $HOME]",
        "latent: its agent ended with 7",
    ]


@pytest.mark.parametrize(("index", "line"), [("0", "one 1 token-1"), ("1", "two-2 12 token-2"), ("2", "three 3 token_3-x")])
def test_a_shared_launch(tmp_path: Path, index: str, line: str) -> None:
    """Each instance is the member that its place in the launch says."""
    with metadata(meta_data__ami_launch_index=index) as (url, _):
        assert f"agent: {line} " in Booted(tmp_path, composed(MEMBERS), url).rest()[1]


def test_a_stranger_in_a_launch(tmp_path: Path) -> None:
    """An instance for which there is no member starts no agent."""
    with metadata(meta_data__ami_launch_index="3") as (url, _):
        assert Booted(tmp_path, composed(MEMBERS), url).rest() == ["latent: there is no member 3 in this launch"]


@pytest.mark.parametrize("without", ["curl", "curl wget"])
def test_images_without_curl(tmp_path: Path, without: str) -> None:
    """Wget or Python will do."""
    (tmp_path / "bin").mkdir()
    for directory in reversed(os.environ["PATH"].split(":")):
        for program in Path(directory).glob("*") if Path(directory).is_dir() else ():
            link = tmp_path / "bin" / program.name
            if program.name not in without.split() and not link.is_symlink():
                link.symlink_to(program)
    with metadata(meta_data__ami_launch_index="1") as (url, _):
        booted = Booted(tmp_path, composed(MEMBERS), url, PATH=f"{tmp_path}/bin")
        assert "agent: two-2 12 token-2 " in booted.rest()[1]


def test_a_spot_interruption_notice(tmp_path: Path) -> None:
    """The agent is told to stop as soon as the metadata have the notice, so that its build goes back to the queue."""
    script = composed(spot=True).replace("sleep 5", "sleep 0.1")
    with metadata() as (url, known):
        booted = Booted(tmp_path, script, url, STAY="1")
        assert booted.line() == "latent: this is attempt 1 of worker one"
        assert booted.line().startswith("agent: one 1")
        known["meta-data/spot/instance-action"] = '{"action": "terminate"}'
        assert sorted(booted.rest()) == [
            "agent: told to stop",
            "latent: its agent ended with 0",
            'latent: spot interruption: {"action": "terminate"}',
        ]


def test_the_watch_ends_with_the_agent(tmp_path: Path) -> None:
    """Nothing goes on when the agent has ended by itself."""
    with metadata() as (url, _):
        assert Booted(tmp_path, composed(spot=True), url).rest()[-1] == "latent: its agent ended with 7"


def test_a_hibernated_instance(tmp_path: Path) -> None:
    """It goes on where it was; when its agent has gone, it takes its next attempt from its user data."""
    whole = composed(how="cloud-init", stop_mode="hibernate")
    with metadata(user_data=whole) as (url, known):
        booted = Booted(tmp_path, script_of(whole).replace("sleep 5", "sleep 0.1"), url)
        assert [booted.line() for _ in range(3)][1].startswith("agent: one 1 token-1 ")
        known["user-data"] = composed([("one", 2, "token-new")], how="cloud-init", stop_mode="hibernate")
        assert [booted.line() for _ in range(3)][1].startswith("agent: one 2 token-new one token-new ")
        booted.end()


def test_an_agent_that_outlives_its_attempt(tmp_path: Path) -> None:
    """After a hibernation it is told to stop, if it does not notice by itself that it is no longer wanted."""
    whole = composed(how="cloud-init", stop_mode="hibernate")
    with metadata(user_data=whole) as (url, known):
        booted = Booted(tmp_path, script_of(whole).replace("sleep 5", "sleep 0.1"), url, STAY="1")
        assert [booted.line() for _ in range(2)][1].startswith("agent: one 1 token-1 ")
        known["user-data"] = composed([("one", 2, "token-new")], how="cloud-init", stop_mode="hibernate")
        assert booted.line() == "agent: told to stop"
        assert [booted.line() for _ in range(3)][2].startswith("agent: one 2 token-new ")
        booted.end()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("#!/bin/sh\necho \"own: $0 100% 'x'\"\n", ["own: "]),
        ("#!/usr/bin/env python3\nprint('own: snake')", ["own: snake"]),
        ("#!/bin/sh\ncat <<'LATENT_USER_DATA'\nown: nested\nLATENT_USER_DATA\n", ["own: nested"]),
        ("#!/bin/sh\necho own: bad\nexit 3\n", ["own: bad", "latent: user_data ended with 3"]),
    ],
)
def test_own_scripts(tmp_path: Path, text: str, printed: list[str]) -> None:
    """The user's script runs first, by its own interpreter; the agent is started whatever comes of it."""
    lines = Booted(tmp_path, composed(text=text), "http://127.0.0.1:9").rest()
    for line, expected in zip(lines, printed, strict=False):
        assert line.startswith(expected)
    assert lines[len(printed)] == "latent: this is attempt 1 of worker one"


def test_variables_are_quoted(tmp_path: Path) -> None:
    """Nothing in a value is taken for a command."""
    variables = {"LATENT_SERVER": 'a\'b $(date) `date` "c"'}
    assert variables["LATENT_SERVER"] in Booted(tmp_path, composed(variables=variables), "http://127.0.0.1:9").rest()[1]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("latent-agent --label os=linux", "exec env latent-agent --label os=linux"),
        ("A=1 latent-agent", "exec env A=1 latent-agent"),
        ("cd /srv && latent-agent", "cd /srv && latent-agent"),
        ("exec latent-agent", "exec latent-agent"),
        (["runuser", "-u", "ci", "--", "a b"], "exec runuser -u ci -- 'a b'"),
    ],
)
def test_commands(command: Any, line: str) -> None:
    """One program takes the shell's place, so that it hears signals."""
    assert command_line(command) == line


# --- for cloud-init ---------------------------------------------------------------------------------------------------------


def parts_of(text: str) -> list[tuple[str, str]]:
    message = email.message_from_string(text)
    assert message.get_content_type() == "multipart/mixed"
    assert not message.defects
    return [
        (part.get_content_type(), part.get_payload(decode=True).decode())  # type: ignore[union-attr]
        for part in message.walk()
        if not part.is_multipart()
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("#!/bin/bash\necho\n", "text/x-shellscript"),
        ("#cloud-config\npackages: [git]\n", "text/cloud-config"),
        ("#cloud-boothook\n#!/bin/sh\n", "text/cloud-boothook"),
        ("#include\nhttps://example.org/x\n", "text/x-include-url"),
        ("## template: jinja\n#cloud-config\n", "text/jinja2"),
        ("master=10.0.0.1", "text/plain"),
        ("#cloud-config\n# é\n", "text/cloud-config"),
    ],
)
def test_multipart(text: str, kind: str) -> None:
    """The user's part comes first, as what it is; the enrolment, which goes on, last."""
    (own, enrolment) = parts_of(composed(how="cloud-init", text=text))
    assert own == (kind, text) or own == (kind, text.rstrip("\n"))
    assert enrolment[0] == "text/x-shellscript"
    assert "one 1 token-1" in enrolment[1]


def test_nested_multipart() -> None:
    """What is multipart already keeps its parts."""
    inner = composed(how="cloud-init", text="#cloud-config\npackages: [git]\n")
    kinds = [kind for kind, _ in parts_of(composed(how="cloud-init", text=inner))]
    assert kinds == ["text/cloud-config", "text/x-shellscript", "text/x-shellscript"]


def test_every_boot() -> None:
    """One that is to be started again runs its scripts at every boot, which cloud-init does not do by itself."""
    (first, _) = parts_of(composed(how="cloud-init", stop_mode="stop"))
    assert first[0] == "text/cloud-config"
    assert "- [scripts-user, always]" in first[1]


def test_the_same_again() -> None:
    """A launch that is repeated has the same user data, to the byte."""
    assert composed(MEMBERS, how="cloud-init", text="x") == composed(MEMBERS, how="cloud-init", text="x")


# --- without an enrolment ---------------------------------------------------------------------------------------------------


def test_variables_alone() -> None:
    """For images that read user data themselves: the variables, or the user's text with the variables in it."""
    variables = {"LATENT_TOKEN": "a b", "LATENT_WORKER": "w"}
    assert composed(how=None, variables=variables) == "LATENT_TOKEN='a b'\nLATENT_WORKER=w\n"
    assert composed(how=None, variables=variables, text="[agent]\n@LATENT_ENVIRONMENT@\n[x]") == (
        "[agent]\nLATENT_TOKEN='a b'\nLATENT_WORKER=w\n[x]"
    )
    assert composed(how=None, variables=variables, text="as it is") == "as it is"


def test_no_script() -> None:
    """A script that is none can't be made part of one."""
    with pytest.raises(ConfigError, match="user_data is no script"):
        composed(text="#cloud-config\n")


def test_a_hundred_fit() -> None:
    """The rows of a hundred members leave room for the user's own."""
    members = [(f"linux-large-{n}", 1234, "t" * 43) for n in range(100)]
    data = UserData(text="#!/bin/sh\n" + "#" * 4000, how="cloud-init", variables={}, command="x", spot=True)
    assert data.problem(members) == ""
    assert "user_data makes" in data.problem(members * 2)
