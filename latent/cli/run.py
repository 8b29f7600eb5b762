"""The controller in the foreground: from master.cfg to a running reactor, and from a signal to a clean end."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from latent.cli.daemon import check, tell
from latent.cli.exits import CliError, ExitCode, config_error
from latent.cli.place import Place
from latent.cli.reactor import install


def run(place: Place, report_fd: int | None = None) -> None:
    """Run the controller of the place until it is stopped. ``report_fd``: where the outcome of the start is told.

    Raises CliError when it can't start, or did not stop cleanly.
    """
    if report_fd is not None:
        os.set_inheritable(report_fd, False)  # else every instance would hold it open
    try:
        check(place)
        os.chdir(place.basedir)
        reactor = install()
        _log_to_stdout()
        failure = _Foreground(place, reactor, lambda: tell(report_fd, ExitCode.OK)).run()
        if failure is not None:
            raise failure
    except CliError as error:
        tell(report_fd, error.code, error.message, error.remedy)
        raise


class _Foreground:
    """One controller in this process: its start, its signals, its end."""

    def __init__(self, place: Place, reactor: Any, up: Callable[[], None]) -> None:
        # Here, and not at the top: what these import must find the reactor installed.
        from twisted.logger import Logger

        from latent.cli.assembly import Assembly

        self._log = Logger("latent")
        self._place = place
        self._reactor = reactor
        self._up = up
        self._assembly = Assembly(place.config, place.state, reactor=reactor, ended=self._end)
        self._failure: CliError | None = None
        self._signals = 0

    def run(self) -> CliError | None:
        """Run the reactor; None when the controller was stopped as it should be."""
        self._reactor.callWhenRunning(self._start)
        self._reactor.run()
        return self._failure

    def _start(self) -> None:
        from twisted.internet.defer import Deferred

        for number, handler in (
            (signal.SIGTERM, self._asked_to_stop),
            (signal.SIGINT, self._asked_to_stop),
            (signal.SIGHUP, self._asked_to_reload),
        ):
            # Not the event loop's own: that would take the wake-up pipe from Twisted, which reaps processes by it.
            signal.signal(number, self._from_signal(handler))
        Deferred.fromCoroutine(self._assembly.start()).addCallbacks(self._started, self._not_started)

    def _from_signal(self, handler: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
        return lambda number, frame: self._reactor.callFromThread(handler)

    def _started(self, _: None) -> None:
        try:
            self._place.pid_file.write_text(f"{os.getpid()}\n")
        except OSError as error:
            self._log.warn("{path} can't be written: {why}", path=str(self._place.pid_file), why=error.strerror)
        self._log.info(
            "the controller is up: agents attach to port {port}, the API is at {api}",
            port=self._assembly.peer_port,
            api=self._assembly.api_address,
        )
        self._up()

    def _not_started(self, failure: Any) -> None:
        self._failure = self._explain(failure)
        self._end()

    def _explain(self, failure: Any) -> CliError:
        from twisted.internet.error import CannotListenError

        from latent.errors import ConfigError, LatentError

        error = failure.value
        if isinstance(error, ConfigError) and self._assembly.controller is None:
            return config_error(self._place.config, error.errors)
        if isinstance(error, CannotListenError):
            where = f"{error.interface}:{error.port}" if error.interface else str(error.port)
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            return CliError(
                ExitCode.START_FAILED,
                f"www: can't listen on {where} ({reason})",
                "stop the program that uses the port, or choose another in c['www']",
            )
        if isinstance(error, LatentError):
            message, _, remedy = str(error).partition("; ")
            return CliError(ExitCode.START_FAILED, message, remedy)
        self._log.failure("the controller could not start", failure)
        return CliError(ExitCode.START_FAILED, f"the controller could not start: {error!r}", f"see {self._place.log}")

    def _asked_to_stop(self) -> None:
        self._signals += 1
        if self._signals > 2:
            self._log.warn("asked to stop three times: ending at once; the next start looks after what is left")
            self._end()
            return
        self._log.info("stopping" if self._signals == 1 else "stopping fast: builds that run are queued again")
        self._assembly.stop_soon(self._signals > 1)

    def _asked_to_reload(self) -> None:
        from twisted.internet.defer import Deferred

        self._log.info("reading {path} again", path=str(self._place.config))
        Deferred.fromCoroutine(self._assembly.reconfigure()).addErrback(self._not_reloaded)

    def _not_reloaded(self, failure: Any) -> None:
        from latent.errors import ConfigError

        if failure.check(ConfigError):
            self._log.error("nothing is applied:\n{errors}", errors=str(failure.value))
        else:
            self._log.failure("the configuration could not be applied", failure)

    def _end(self) -> None:
        """What the assembly calls when it has stopped, and what ends a start that failed."""
        if self._failure is None:
            self._log.info("the controller has stopped")
        self._place.pid_file.unlink(missing_ok=True)
        if self._reactor.running:
            self._reactor.stop()


def _log_to_stdout() -> None:
    """Twisted's log and the standard library's, each event on a line with its time."""
    from twisted.logger import (
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
        textFileLogObserver,
    )

    to_stdout: Any = textFileLogObserver(sys.stdout)
    from_info: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    observer: Any = FilteringLogObserver(to_stdout, [from_info])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(asctime)s [%(name)s#%(levelname)s] %(message)s")
