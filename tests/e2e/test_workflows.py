"""`latent workflow` as a user has it: a real controller, process workers, drivers that are interrupted and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.e2e.site import PATIENCE, Site

CONFIG = """
c = {}
c["workers"] = [worker.ProcessLatentWorker("w-{n}", count=3, build_wait_timeout=300)]
c["builders"] = [util.Builder("work", [util.Step(["sh", "-c", util.Property("command")], name="do")])]
"""

FLOW = """
from pathlib import Path

from latent.swarm import Workflow

HERE = Path(__file__).parent
wf = Workflow("flow")


def command(name, then=""):
    return f"echo {name} >> {HERE}/begun; {then}"


first = wf.array("first", template="work")
gated = wf.array("gated", template="work")
last = wf.array("last", template="work").task("all", {"command": command("last")})
for number in range(3):
    begin = first.task(str(number), {"command": command(f"first-{number}")})
    wait = f"while [ ! -e {HERE}/gate-{number} ]; do sleep 0.05; done; echo gated-{number} >> {HERE}/ended"
    last.after(gated.task(str(number), {"command": command(f"gated-{number}", wait)}).after(begin))
"""


class Driver:
    """`latent workflow run`, a process of its own."""

    def __init__(self, site: Site, *words: str) -> None:
        self._site = site
        self._out = (site.directory / f"driver-{time.monotonic_ns()}").open("w+b")
        self.process = subprocess.Popen(
            site.command("workflow", "run", *words),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        )

    def said(self) -> str:
        return os.pread(self._out.fileno(), 1 << 20, 0).decode()

    def wait_for(self, text: str) -> None:
        self._site.wait(f"{text!r} from the driver, which said {self.said()!r}", lambda: text in self.said())

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(PATIENCE)
        assert "Traceback" not in self.said()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()


class Flow:
    """The site of one workflow, FLOW."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.here = site.directory
        self.file = self.here / "flow.py"
        self.file.write_text(FLOW)
        self._drivers: list[Driver] = []
        site.latent("start")

    def drive(self, *words: str) -> Driver:
        self._drivers.append(Driver(self.site, *(words or (str(self.file),)), "--heartbeat", "4"))
        return self._drivers[-1]

    def close(self) -> None:
        for driver in self._drivers:
            driver.close()

    def open(self, *gates: int) -> None:
        for gate in gates:
            (self.here / f"gate-{gate}").touch()

    def begun(self) -> Counter[str]:
        """How often each task was begun."""
        path = self.here / "begun"
        return Counter(path.read_text().split() if path.exists() else ())

    def tell(self) -> dict[str, Any]:
        found: dict[str, Any] = self.site.call("GET", "workflows/1")
        return found

    def counts(self) -> dict[str, dict[str, int]]:
        return {array["definition"]["name"]: array["counts"] for array in self.tell()["arrays"]}

    def wait_until_gated(self, *gates: int) -> None:
        """Until these tasks wait at their gates."""
        wanted = {f"gated-{gate}" for gate in gates}
        self.site.wait(f"{wanted} to begin", lambda: wanted <= set(self.begun()))

    def wait_for_status(self, status: str) -> None:
        self.site.wait(f"status {status}", lambda: self.tell()["status"] == status)


@contextmanager
def flowing(site: Callable[[str], Site]) -> Iterator[Flow]:
    flow = Flow(site(CONFIG))
    try:
        yield flow
    finally:
        flow.close()


EACH_ONCE = Counter([*(f"first-{n}" for n in range(3)), *(f"gated-{n}" for n in range(3)), "last"])


def test_from_a_file_to_the_end(site: Callable[[str], Site], tmp_path: Path) -> None:
    """It is driven to the end, listed, shown and drawn; it can't be begun twice, but under another name."""
    with flowing(site) as flow:
        flow.open(0, 1, 2)
        done = flow.site.run("workflow", "run", str(flow.file))
        assert re.fullmatch(r"workflow 1 \(flow\) is done after \S+: 7 done\n", done.stdout), done
        assert done.returncode == 0
        told = done.stderr.splitlines()
        assert told[0] == "workflow 1 (flow), run 1: 7 tasks in 3 arrays"
        assert {"first: all 3 done", "gated: all 3 done", "last: done"} <= set(told)
        assert flow.begun() == EACH_ONCE

        again = flow.site.run("workflow", "run", str(flow.file))
        assert again.returncode == 7
        assert "workflow 1 is finished" in again.stderr
        other = flow.site.run("workflow", "run", str(flow.file), "--name", "other", "--json")
        assert json.loads(other.stdout)["counts"]["D"] == 7

        listed = flow.site.latent("workflow", "status").splitlines()
        assert [line.split()[:3] for line in listed[1:]] == [["2", "other", "done"], ["1", "flow", "done"]]
        assert "gated  work        3      3" in flow.site.latent("workflow", "status", "1")
        for target in ("1", str(flow.file)):
            flow.site.latent("workflow", "graph", target, "-o", str(tmp_path / "flow.svg"))
            root = ElementTree.parse(tmp_path / "flow.svg").getroot()
            texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
            assert {"first/0", "gated/2", "last/all"} <= set(texts)
            assert ("7 done" in texts) == (target == "1")
        missing = flow.site.run("workflow", "status", "9")
        assert (missing.returncode, missing.stdout) == (6, "")


def test_what_is_wrong(site: Callable[[str], Site], tmp_path: Path) -> None:
    """A failing task, an unknown builder, a file that changed, a time limit: each is told, and has its exit code."""
    with flowing(site) as flow:
        failing = tmp_path / "failing.py"
        failing.write_text(
            "from latent.swarm import Workflow\n"
            "wf = Workflow('failing')\n"
            "bad = wf.array('bad', template='work', properties={'command': 'exit 3'}, max_attempts=2).task('it')\n"
            "wf.array('after', template='work', properties={'command': 'true'}).task('it').after(bad)\n"
        )
        done = flow.site.run("workflow", "run", str(failing))
        assert done.returncode == 1
        assert "bad/it failed (build 1, try 1 of 2): step do: exit code 3; it is tried again" in done.stderr
        assert "bad/it failed (build 2, try 2 of 2): step do: exit code 3\n" in done.stderr
        assert "workflow 1 (failing) failed" in done.stdout
        assert "✗ bad/it (build 2, 2 tries): step do: exit code 3" in done.stdout
        assert "--resume 1 --cold" in done.stdout
        shown = flow.site.latent("workflow", "status", "1")
        assert re.search(r"bad/it +2 of 2 +2 +step do: exit code 3", shown)

        failing.write_text(failing.read_text().replace("exit 3", "true"))
        changed = flow.site.run("workflow", "run", str(failing), "--resume", "1", "--cold")
        assert changed.returncode == 7
        assert "is not what workflow 1 was made from" in changed.stderr
        failing.write_text(failing.read_text().replace("template='work', prop", "template='wrok', prop"))
        unknown = flow.site.run("workflow", "run", str(failing))
        assert unknown.returncode == 3
        assert "no builder is called 'wrok'" in unknown.stderr
        late = flow.site.run("workflow", "run", str(flow.file), "--timeout", "3")
        assert late.returncode == 11
        assert "not done within 3 seconds" in late.stdout
        flow.site.latent("stop")
        away = flow.site.run("workflow", "run", str(flow.file))
        assert (away.returncode, away.stdout) == (4, "")


def test_ctrl_c(site: Callable[[str], Site]) -> None:
    """The first asks. The second leaves: what runs goes on, and a hot resume takes it up with nothing done twice."""
    with flowing(site) as flow:
        driver = flow.drive()
        flow.wait_until_gated(0, 1, 2)
        driver.process.send_signal(signal.SIGINT)
        driver.wait_for("Ctrl-C again within 10 s leaves the workflow")
        assert driver.process.poll() is None
        driver.process.send_signal(signal.SIGINT)
        assert driver.ended() == 130
        command = f"latent -C {flow.here} workflow run {flow.file} --resume 1 --hot"
        assert command in driver.said()
        assert flow.counts()["gated"]["R"] == 3
        flow.open(0)
        flow.site.wait("what was left to end", lambda: (flow.here / "ended").exists())

        halted = flow.site.run("workflow", "run", str(flow.file))
        assert halted.returncode == 7
        assert "--resume 1 --hot" in halted.stderr
        again = flow.drive(*command.split()[5:])
        again.wait_for("run 2: 7 tasks in 3 arrays")
        flow.open(1, 2)
        assert again.ended() == 0
        assert flow.begun() == EACH_ONCE


def test_another_driver_takes_over_and_cancels(site: Callable[[str], Site]) -> None:
    """A hot resume of what is driven: the first driver gives way, no build is lost. Then the whole is cancelled."""
    with flowing(site) as flow:
        first = flow.drive()
        flow.wait_until_gated(0, 1, 2)
        flow.open(0)
        second = flow.drive("--resume", "1", "--hot")
        assert first.ended() == 12
        assert "has another driver" in first.said()
        second.wait_for("workflow 1 (flow), run 2: 7 tasks in 3 arrays")
        assert flow.begun().most_common(1)[0][1] == 1
        flow.site.latent("workflow", "cancel", "1")
        assert second.ended() == 12
        assert "workflow 1 (flow) is cancelled" in second.said()
        flow.site.wait("its builds to end", lambda: all(b["state"] == "finished" for b in flow.site.builds().values()))
        assert "halted" in flow.site.latent("workflow", "status", "1")


def test_a_killed_driver_is_resumed_hot_and_cold(site: Callable[[str], Site]) -> None:
    """Hot: builds that run go on, and count. Cold: they end, and their tasks begin anew. What is done is never done again."""
    with flowing(site) as flow:
        driver = flow.drive()
        flow.wait_until_gated(0, 1, 2)
        driver.process.kill()
        driver.process.wait()
        flow.open(0)
        flow.site.wait("what nobody watches to end", lambda: (flow.here / "ended").exists())

        hot = flow.drive("--resume", "1", "--hot")
        hot.wait_for("run 2: 7 tasks in 3 arrays")
        flow.site.wait("the first to count", lambda: flow.counts()["gated"].get("D") == 1)
        assert flow.begun() == EACH_ONCE - Counter(["last"])
        hot.process.kill()
        hot.process.wait()

        cold = flow.drive("--resume", "1", "--cold")
        cold.wait_for("run 3: 7 tasks in 3 arrays, 4 of them done already")
        flow.open(1, 2)
        assert cold.ended() == 0
        assert flow.begun() == EACH_ONCE + Counter(["gated-1", "gated-2"])
        ended = Counter((flow.here / "ended").read_text().split())
        assert ended == Counter(f"gated-{n}" for n in range(3)), "the builds that were ended did not come to their end"


def test_a_controller_that_is_killed_and_comes_back(site: Callable[[str], Site]) -> None:
    """The driver waits for it, says so, and goes on: each task is done once, and the run is the same."""
    with flowing(site) as flow:
        driver = flow.drive()
        flow.wait_until_gated(0, 1, 2)
        flow.site.kill_controller()
        driver.wait_for("the controller does not answer")
        flow.open(0, 1, 2)
        flow.site.latent("start")
        assert driver.ended() == 0
        assert "the controller is back after" in driver.said()
        assert flow.begun() == EACH_ONCE
        assert flow.tell()["run"]["id"] == 1
