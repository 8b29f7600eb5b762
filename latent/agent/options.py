"""What the agent is told: by its command line, or by the environment that its instance was started with."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

EPILOG = """
exit codes:
  0  told to stop (SIGTERM, SIGINT), and stopped
  1  an error that nobody foresaw
  2  wrong options
  3  the controller refuses this agent: its token, its attempt or its version; or has closed its session for good
  4  no controller answered for --orphan-timeout seconds

A step that is ended by signal N is reported with exit code 128 + N.
"""


@frozen(kw_only=True)
class Options:
    """Times are seconds. ``extend``, ``health``, ``flush``: how often leases are extended, life is shown, logs are sent;
    ``grace``: between SIGTERM and SIGKILL for a step; ``farewell``: for the last calls of an agent that stops.
    """

    server: str
    token: str = field(repr=False)
    worker: str = ""
    attempt: str = ""
    workdir: Path
    capacity: int = 1
    labels: Mapping[str, str] = field(factory=dict)
    orphan_timeout: float = 3600.0
    log_level: str = "info"
    extend: float = 20.0
    health: float = 10.0
    flush: float = 1.0
    grace: float = 10.0
    farewell: float = 10.0


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Exits with code 2 and a message when something is missing or wrong."""
    parser = argparse.ArgumentParser(
        prog="latent-agent",
        description="Attach to a latent controller and run the builds that it leases to this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def option(name: str, variable: str, help: str, **more: object) -> None:
        more.setdefault("default", environ.get(variable))
        parser.add_argument(name, help=f"{help} [{variable}]", **more)  # type: ignore[arg-type]

    option("--server", "LATENT_SERVER", "host:port of the controller")
    option("--token", "LATENT_TOKEN", "enrolment token or password; better given in the environment")
    option("--worker", "LATENT_WORKER", "name of the worker that this is", default=environ.get("LATENT_WORKER", ""))
    option("--attempt", "LATENT_ATTEMPT", "number of the worker's attempt", default=environ.get("LATENT_ATTEMPT", ""))
    option("--workdir", "LATENT_WORKDIR", "where runs get their folders (default: here)")
    option("--capacity", "LATENT_CAPACITY", "builds at a time (default: 1)", type=int, metavar="N")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="what this machine offers; may be repeated"
    )
    option("--orphan-timeout", "LATENT_ORPHAN_TIMEOUT", "seconds without a controller after which the agent ends", metavar="S")
    option("--log-level", "LATENT_LOG_LEVEL", "debug, info, warning or error (default: info)")
    given = parser.parse_args(arguments)

    def seconds(variable: str, value: str | None, default: float) -> float:
        try:
            number = default if value is None else float(value)
        except ValueError:
            number = -1.0
        if not 0 < number < float("inf"):
            parser.error(f"{variable}: {value!r} is not a number of seconds above 0")
        return number

    if not given.server or not given.server.rpartition(":")[2].isdigit():
        parser.error("the controller's host:port is needed, with --server or in LATENT_SERVER")
    if not given.token:
        parser.error("a token is needed, with --token or in LATENT_TOKEN")
    capacity = 1 if given.capacity is None else given.capacity
    if capacity < 1:
        parser.error(f"--capacity: {capacity} is not a number above 0")
    level = (given.log_level or "info").lower()
    if level not in ("debug", "info", "warning", "error"):
        parser.error(f"--log-level: {level!r} is none of debug, info, warning, error")
    labels = dict(label.partition("=")[::2] for label in given.label)
    if "" in labels or not all("=" in label for label in given.label):
        parser.error("--label: write name=value")
    return Options(
        server=given.server,
        token=given.token,
        worker=given.worker,
        attempt=given.attempt,
        workdir=Path(given.workdir or os.curdir).absolute(),
        capacity=capacity,
        labels=labels,
        orphan_timeout=seconds("--orphan-timeout", given.orphan_timeout, 3600.0),
        log_level=level,
        extend=seconds("LATENT_EXTEND_INTERVAL", environ.get("LATENT_EXTEND_INTERVAL"), 20.0),
        health=seconds("LATENT_HEALTH_INTERVAL", environ.get("LATENT_HEALTH_INTERVAL"), 10.0),
        flush=seconds("LATENT_LOG_INTERVAL", environ.get("LATENT_LOG_INTERVAL"), 1.0),
        grace=seconds("LATENT_GRACE", environ.get("LATENT_GRACE"), 10.0),
        farewell=seconds("LATENT_FAREWELL", environ.get("LATENT_FAREWELL"), 10.0),
    )
