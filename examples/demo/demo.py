"""The main job in two minutes: two dozen builds on four latent workers, with the controller killed in the middle.

    python examples/demo/demo.py

Needs latent installed and nothing else. Works in a temporary directory and leaves nothing behind. Exits with 0 when every build
ended as it was meant to, each exactly once, and no process of an instance is left; with 1 otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

PLAN = [
    *["greet"] * 8,
    *["count"] * 6,
    *["steps"] * 5,
    *["broken"] * 3,
    "too-slow",
    "unwanted",
]
"""What is asked for, by builder."""

MEANT = {"broken": "failure", "too-slow": "timeout", "unwanted": "cancelled"}
"""How builds are meant to end, where that is not success."""

PATIENCE = 150.0
"""Seconds after which the demo gives up."""

STYLES = {"success": "green", "failure": "yellow", "timeout": "yellow", "cancelled": "yellow"}

console = Console()


class Site:
    """A directory with a master.cfg, and the `latent` command in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # The command of the environment that this runs in, also when that is not on PATH.
        beside = Path(sys.executable).with_name("latent")
        self.program = str(beside) if beside.exists() else "latent"

    def latent(self, *args: str) -> str:
        done = subprocess.run(
            [self.program, "-C", str(self.directory), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
        )
        if done.returncode:
            raise SystemExit(f"latent {' '.join(args)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def ask(self, *args: str) -> Any:
        return json.loads(self.latent(*args, "--json"))

    def kill_controller(self) -> int:
        pid = json.loads((self.directory / "state" / "api.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
        return pid

    def processes(self) -> list[int]:
        """Every process whose work is below this site, the controller's and the instances'."""
        found = []
        for process in psutil.process_iter(["pid", "environ", "cmdline"]):
            told = [*(process.info["environ"] or {}).values(), *(process.info["cmdline"] or [])]
            if process.info["pid"] != os.getpid() and any(str(self.directory) in text for text in told):
                found.append(process.info["pid"])
        return found


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="latent-demo-"))
    shutil.copy(Path(__file__).with_name("master.cfg"), directory)
    site = Site(directory)
    try:
        return demonstrate(site)
    finally:
        if site.processes():
            subprocess.run([site.program, "-C", str(directory), "stop", "--fast"], capture_output=True, timeout=60, check=False)
        shutil.rmtree(directory, ignore_errors=True)


def demonstrate(site: Site) -> int:
    console.rule("latent: builds on machines that exist only while there is work")
    site.latent("start")
    console.print("The controller runs. It has four workers, and no instance of any: there is no work yet.")
    asked = {site.ask("submit", builder)["id"]: builder for builder in PLAN}
    console.print(f"{len(asked)} builds are asked for. Instances appear:\n")
    killed = watch(site, asked)
    builds = {
        build["id"]: site.ask("build", str(build["id"])) for build in site.ask("builds", "--limit", str(len(asked)))["builds"]
    }
    console.print()
    console.print(results(builds))
    console.print("\nWhat happened to one worker, and why ([bold]latent history demo-1[/bold]):\n")
    print(site.latent("history", "demo-1"))
    started = sum(worker["attempt"] for worker in site.ask("workers")["workers"])
    site.latent("stop")
    left = site.processes()
    wrong = [build for build in builds.values() if not as_meant(build)]
    console.print(
        f"{len(builds)} builds, {started} instances started, {len(left)} processes left; "
        f"the controller was killed once (pid {killed}) and lost nothing."
    )
    if wrong or left or len(builds) != len(asked):
        console.print(f"[red]Not as it was meant: builds {[build['id'] for build in wrong]}, processes {left}.[/red]")
        return 1
    console.print("[green]Every build ended as it was meant to, each exactly once.[/green]")
    return 0


def watch(site: Site, asked: dict[int, str]) -> int:
    """Show progress until all builds are over. On the way one is cancelled, and the controller is killed and started again."""
    deadline = time.monotonic() + PATIENCE
    unwanted = next(number for number, builder in asked.items() if builder == "unwanted")
    cancelled, killed = False, 0
    progress = Progress(
        TextColumn("{task.description:<11}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    bars = {builder: progress.add_task(builder, total=count) for builder, count in Counter(asked.values()).items()}
    with Live(console=console, refresh_per_second=8) as live:
        while time.monotonic() < deadline:
            builds = site.ask("builds", "--limit", str(len(asked)))["builds"]
            over = Counter(build["builder"] for build in builds if build["state"] == "finished")
            for builder, bar in bars.items():
                progress.update(bar, completed=over[builder])
            live.update(picture(progress, site.ask("workers")["workers"]))
            if sum(over.values()) == len(asked):
                return killed
            running = {build["id"] for build in builds if build["state"] == "running"}
            if not cancelled and unwanted in running:
                site.latent("cancel", str(unwanted), "--reason", "nobody wants it")
                cancelled = True
            if not killed and sum(over.values()) >= 10 and len(running) >= 3:
                killed = site.kill_controller()
                live.console.print(f"[bold red]kill -9 {killed}[/]: the controller is gone while {len(running)} builds run.")
                site.latent("start")
                live.console.print(
                    "[bold green]latent start[/]: it is back, and so are its builds: their agents never stopped.\n"
                )
            time.sleep(0.3)
    raise SystemExit(f"the builds did not end within {PATIENCE:g} s")


def picture(progress: Progress, workers: list[dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 4))
    states = Table(box=None, show_header=False)
    for worker in workers:
        builds = ", ".join(f"build {number}" for number in worker["builds"])
        states.add_row(worker["name"], f"[cyan]{worker['state']}[/]", f"attempt {worker['attempt']}", builds)
    table.add_row(progress, states)
    return table


def as_meant(build: dict[str, Any]) -> bool:
    """It ended as it was meant to, and an agent had it exactly once."""
    return build["result"] == MEANT.get(build["builder"], "success") and build["attempts"] == 1


def results(builds: dict[int, dict[str, Any]]) -> Table:
    table = Table(title="How they ended")
    for column in ("build", "builder", "worker", "result", "meant", "tries", "seconds"):
        table.add_column(column, justify="right" if column in ("build", "tries", "seconds") else "left")
    for number in sorted(builds):
        build = builds[number]
        ran = build["runs"][-1] if build["runs"] else {}
        seconds = f"{build['ended_at'] - build['started_at']:.1f}" if build["started_at"] else ""
        meant = MEANT.get(build["builder"], "success")
        style = STYLES.get(build["result"], "red") if as_meant(build) else "bold red"
        where = f"{ran['worker']}#{ran['attempt']}" if ran else ""
        table.add_row(str(number), build["builder"], where, build["result"], meant, str(build["attempts"]), seconds, style=style)
    return table


if __name__ == "__main__":
    sys.exit(main())
