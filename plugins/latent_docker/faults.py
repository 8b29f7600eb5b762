"""What an error of docker-py or of the daemon means: one table, read from the top."""

from __future__ import annotations

import re
from collections.abc import Iterator

import docker.errors
import requests.exceptions
from attrs import frozen

from latent.errors import (
    LatentError,
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    LatentWorkerQuotaError,
    LatentWorkerThrottled,
)


class DaemonUnreachable(LatentWorkerFailedToSubstantiate):
    """No daemon answers. ``sent``: whether what was asked for may have been done all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@frozen
class Row:
    """``pattern`` is looked for in the error's text, without regard to case."""

    pattern: re.Pattern[str]
    error: type[LatentWorkerFailedToSubstantiate]
    remedy: str


def _row(pattern: str, error: type[LatentWorkerFailedToSubstantiate], remedy: str) -> Row:
    return Row(re.compile(pattern, re.IGNORECASE), error, remedy)


TABLE = (
    # what there is no room for, now
    _row("no space left on device|disk quota exceeded", LatentWorkerCapacityError, "make room on its disk: docker system df"),
    _row("cannot allocate memory|out of memory", LatentWorkerCapacityError, "it has no memory left: set max_containers"),
    _row(
        "resource temporarily unavailable|too many open files|max depth exceeded",
        LatentWorkerCapacityError,
        "the daemon has reached a limit of its machine: set max_containers, or raise the limit",
    ),
    _row("port is already allocated|address already in use", LatentWorkerCapacityError, "another container has the port"),
    _row(
        "available.{0,40}(address pool|subnet)|address pools? .{0,40}(subnet|exhausted)",
        LatentWorkerQuotaError,
        "it has no more networks: docker network prune, or widen default-address-pools",
    ),
    # a registry
    _row("toomanyrequests|too many requests|rate limit", LatentWorkerThrottled, "the registry asks for fewer pulls"),
    _row(
        "unauthorized|authentication required|denied: |access .{0,40}denied|no basic auth",
        LatentWorkerConfigurationError,
        "docker login as the user that the controller runs as, or correct the image's name",
    ),
    _row(
        "manifest .{0,200}(unknown|not found)|repository .{0,200}not found|pull access",
        LatentWorkerConfigurationError,
        "the registry has no such image: correct its name",
    ),
    # what the declaration says
    _row(
        "no such image|image .{0,200}not found|invalid reference format|repository name must be",
        LatentWorkerConfigurationError,
        "correct the image's name, build or pull it there, or set autopull=True",
    ),
    _row(
        "network .{0,200}not found|no such network|invalid network",
        LatentWorkerConfigurationError,
        "make the network, or correct hostconfig's network_mode",
    ),
    _row(
        "executable file not found|exec format error|exec: .{0,200}(permission denied|no such file)|no command specified",
        LatentWorkerConfigurationError,
        "correct command, or the image's own",
    ),
    _row(
        "invalid mount|invalid volume|mount point|bind source path|mount denied|mounts denied|duplicate mount",
        LatentWorkerConfigurationError,
        "correct volumes",
    ),
    _row(
        "unknown .{0,20}runtime|unknown log opt|logger: no log driver|invalid|unknown flag|unsupported|conflicting options",
        LatentWorkerConfigurationError,
        "correct the worker's hostconfig",
    ),
    # TLS
    _row(
        "certificate verify failed|tls|ssl|http request to an https server|malformed http response",
        LatentWorkerConfigurationError,
        "give tls=docker.tls.TLSConfig(...) with the certificates that fit docker_host",
    ),
)
"""No rows for what an error of a type of its own says: see `translate`."""


def translate(error: Exception, host: str) -> Exception:
    """The error that the controller understands, in place of one of docker-py's; one that is ours already stays as it is."""
    if isinstance(error, LatentError):
        return error
    text = _text(error)
    if isinstance(error, docker.errors.ImageNotFound):
        return _of(LatentWorkerConfigurationError, host, text, "build or pull it there, or set autopull=True")
    if isinstance(error, docker.errors.TLSParameterError | requests.exceptions.SSLError):
        return _of(LatentWorkerConfigurationError, host, text, "give tls=docker.tls.TLSConfig(...) with certificates that fit")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return _of(LatentWorkerConfigurationError, host, text, "correct docker_host: unix:///PATH, tcp://HOST:PORT, ssh://HOST")
    if _is_lost(error):
        sent = not _was_refused(error)
        return DaemonUnreachable(f"no Docker daemon answers at {host}: {text}; see that dockerd runs there", sent=sent)
    for row in TABLE:
        if row.pattern.search(text):
            return _of(row.error, host, text, row.remedy)
    if isinstance(error, docker.errors.InvalidVersion | docker.errors.InvalidConfigFile | TypeError | ValueError):
        return _of(LatentWorkerConfigurationError, host, text, "correct the worker's declaration, or the Docker configuration")
    if isinstance(error, docker.errors.APIError) and error.is_client_error():
        return _of(LatentWorkerConfigurationError, host, text, "correct the worker's declaration")
    if isinstance(error, docker.errors.DockerException | requests.exceptions.RequestException | OSError):
        return LatentWorkerFailedToSubstantiate(f"{host}: {text}")
    return error


def translate_text(text: str, host: str, subject: str) -> Exception:
    """The same for an error that came as a line of a build's or pull's output. ``subject``: what was being done."""
    for row in TABLE[:8]:  # what the image's own commands print must not be read as one of the daemon's errors
        if row.pattern.search(text):
            return _of(row.error, host, f"{subject}: {text}", row.remedy)
    return _of(LatentWorkerConfigurationError, host, f"{subject}: {text}", "correct it")


def _of(kind: type[LatentWorkerFailedToSubstantiate], host: str, text: str, remedy: str) -> LatentWorkerFailedToSubstantiate:
    return kind(f"{host}: {text.rstrip('.')}; {remedy}")


def _text(error: Exception) -> str:
    if isinstance(error, docker.errors.APIError) and error.explanation:
        explanation = error.explanation
        return explanation.decode(errors="replace") if isinstance(explanation, bytes) else str(explanation)
    return str(error) or type(error).__name__


def _is_lost(error: BaseException | None) -> bool:
    if isinstance(error, requests.exceptions.SSLError):
        return False
    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout | ConnectionError):
        return True
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return True
    # docker-py puts it into one of its own when it asks for the daemon's version first.
    return type(error) is docker.errors.DockerException and _is_lost(error.__cause__)


def _was_refused(error: BaseException) -> bool:
    """Whether nobody took the connection, so that nothing can have been done."""
    return any(isinstance(cause, ConnectionRefusedError | FileNotFoundError | PermissionError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Everything that the error was made from: requests and urllib3 hand causes on in their arguments, too."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [cause for cause in (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
                    if isinstance(cause, BaseException)]  # fmt: skip
