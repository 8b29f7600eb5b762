"""The guards of `tests/conftest.py`, shown tests that leave something behind and tests that only seem to."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.house.guards import (
    collected_garbage, flush_logged_errors, leaves_nothing_behind, marked_environment, pytest_pyfunc_call
)
"""

HEADER = """
import asyncio, sys, subprocess, threading
import pytest, pytest_twisted
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

@pytest.fixture
def reactor():
    from twisted.internet import reactor
    return reactor

def broken(message="for nobody"):
    raise ZeroDivisionError(message)
"""

# What a test leaves behind -> (the test, what the message has to name).
LEAVING = {
    "a_delayed_call": (
        """
        def test_a_delayed_call(reactor):
            reactor.callLater(60, print)
        """,
        "a delayed call: ",
    ),
    "a_failure": (
        """
        def test_a_failure():
            fail(ZeroDivisionError("for nobody"))
        """,
        "ZeroDivisionError: for nobody",
    ),
    "a_failure_in_a_circle": (
        """
        def test_a_failure_in_a_circle():
            d = fail(ZeroDivisionError("for nobody"))
            d.itself = d
        """,
        "ZeroDivisionError: for nobody",
    ),
    "a_logged_failure": (
        """
        def test_a_logged_failure():
            Logger().failure("it broke", Failure(ZeroDivisionError("for nobody")))
        """,
        "ZeroDivisionError: for nobody",
    ),
    "a_broken_callback": (
        """
        @pytest_twisted.ensureDeferred
        async def test_a_broken_callback(reactor):
            reactor.callLater(0, broken)
            await deferLater(reactor, 0.01)
        """,
        "ZeroDivisionError: for nobody",
    ),
    "a_task_that_nobody_awaited": (
        """
        @pytest_twisted.ensureDeferred
        async def test_a_task_that_nobody_awaited(reactor):
            async def fails():
                broken()
            asyncio.ensure_future(fails())
            await deferLater(reactor, 0.01)
        """,
        "ZeroDivisionError: for nobody",
    ),
    "a_child": (
        """
        def test_a_child():
            global child
            child = subprocess.Popen(["sleep", "321"])
        """,
        "sleep 321",
    ),
    "a_process_that_was_sent_away": (
        """
        def test_a_process_that_was_sent_away():
            subprocess.run(["sh", "-c", "setsid sleep 322 >/dev/null 2>&1 &"], check=True)
        """,
        "sleep 322",
    ),
    "a_thread": (
        """
        def test_a_thread():
            threading.Thread(target=threading.Event().wait, args=(2,), name="forgotten").start()
        """,
        "a thread: forgotten",
    ),
}

CLEAN = {
    "what_is_due_at_once_is_on_its_way_out": """
        def test_what_is_due_at_once_is_on_its_way_out(reactor):
            reactor.callLater(0, reactor.callLater, 0, lambda: None)
        """,
    "an_expected_error_is_taken_out": """
        def test_an_expected_error_is_taken_out(flush_logged_errors):
            fail(ZeroDivisionError())
            assert flush_logged_errors(KeyError) == []
            assert len(flush_logged_errors(ZeroDivisionError)) == 1
        """,
    "a_process_that_ended_is_no_matter": """
        def test_a_process_that_ended_is_no_matter():
            subprocess.run(["true"], check=True)
        """,
    "the_reactors_threads_stay": """
        @pytest_twisted.ensureDeferred
        async def test_the_reactors_threads_stay():
            await deferToThread(lambda: None)
        """,
    "a_daemon_thread_may_stay": """
        def test_a_daemon_thread_may_stay():
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        """,
    "a_wider_fixtures_process_is_not_the_tests": """
        def test_a_wider_fixtures_process_is_not_the_tests(server):
            assert server.poll() is None

        @pytest.fixture(scope="module")
        def server():
            with subprocess.Popen(["sleep", "323"]) as process:
                yield process
                process.kill()
        """,
    "what_it_starts_is_its_own_too": """
        def test_what_it_starts_is_its_own_too(forking):
            forking.stdin.write(b"go\\n")
            forking.stdin.close()
            assert forking.stdout.readline() == b"started\\n"

        @pytest.fixture(scope="module")
        def forking():
            shell = "read go; sleep 0.1; setsid sleep 324 >/dev/null & echo started; wait"
            with subprocess.Popen(["sh", "-c", shell], stdin=-1, stdout=-1, start_new_session=True) as process:
                yield process
                for child in __import__("psutil").Process(process.pid).children():
                    child.kill()
        """,
}


WAITING = """
@pytest_twisted.ensureDeferred
async def test_waits():
    await Deferred()

@pytest_twisted.inlineCallbacks
def test_waits_as_a_generator():
    yield Deferred()
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """One pytest over all the planted tests: by the name of a test, what is said of it; "" if it passed."""
    tests = [text for text, _ in LEAVING.values()] + list(CLEAN.values())
    return _run(tmp_path_factory.mktemp("planted"), [WAITING, *tests], 1)


def _run(directory: Path, tests: Iterable[str], code: int) -> Mapping[str, str]:
    directory.joinpath("conftest.py").write_text(CONFTEST)
    directory.joinpath("test_planted.py").write_text(HEADER + "".join(textwrap.dedent(text) for text in tests))
    options = ["--reactor=asyncio", "-p", "no:cacheprovider", "--rootdir=.", "--junitxml=report.xml"]
    command = [sys.executable, "-m", "pytest", *options, "test_planted.py"]
    env = {**os.environ, "LATENT_TEST_LIMIT": "2", "LATENT_TEST_GRACE": "0.5"}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    said: dict[str, str] = {}
    for case in ElementTree.parse(directory / "report.xml").iter("testcase"):
        name = case.attrib["name"].removeprefix("test_")
        said[name] = said.get(name, "") + "".join(str(one.text) for one in case)
    return said


@pytest.mark.parametrize("name", LEAVING)
def test_what_a_test_leaves_behind_fails_it(outcomes: Mapping[str, str], name: str) -> None:
    """A test that leaves something behind fails, and the message says what it was."""
    assert "The test left behind:" in outcomes[name]
    assert LEAVING[name][1] in outcomes[name]


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_else_fails_a_test(outcomes: Mapping[str, str], name: str) -> None:
    """What ends by itself, is expected, or belongs to the reactor or to a wider fixture is no matter."""
    assert outcomes[name] == ""


def test_a_wider_fixture_may_be_the_first_to_start_anything(tmp_path: Path) -> None:
    """What starts before the first test has its guard is known all the same."""
    name = "what_it_starts_is_its_own_too"
    assert _run(tmp_path, [CLEAN[name]], 0) == {name: ""}


def test_a_test_that_waits_for_ever_fails(outcomes: Mapping[str, str]) -> None:
    """What never comes ends one test, with the place where it waited, and not the run."""
    for name in ("waits", "waits_as_a_generator"):
        assert "the test did not end within 2 s" in outcomes[name]


@pytest.mark.usefixtures("outcomes")
def test_a_left_process_is_ended() -> None:
    """A process that fails one test does not stay to fail the next."""
    left = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert ["sleep", "321"] not in left
    assert ["sleep", "322"] not in left
