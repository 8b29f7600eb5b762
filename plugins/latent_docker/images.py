"""Images at one daemon: looked for, pulled or built once for all workers that want the same at the same time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field, frozen
from docker import APIClient
from docker.errors import ImageNotFound
from docker.utils import parse_repository_tag
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.errors import LatentWorkerConfigurationError
from latent.worker import ThreadPool, discard
from latent_docker.faults import translate, translate_text

log = Logger()

TRANSFERS = 4
"""How many builds and pulls run at once at one daemon; their own threads, since they may take long."""

STEP = 10
"""Percent of a pull after which its progress is told again."""

LINES = 1000
"""How much of a build's output is told; the end of it is told in any case, by the error."""

Tell = Callable[[str], None]


@frozen
class Wanted:
    """An image as it is to be: the key by which workers share the work. ``buildargs`` in the order of their names."""

    reference: str
    dockerfile: str | None = None
    custom_context: bool = False
    encoding: str = "gzip"
    target: str = ""
    buildargs: tuple[tuple[str, str], ...] = ()
    autopull: bool = False
    always_pull: bool = False


@define(eq=False)
class _Job:
    """``told`` so far, for whoever joins later."""

    listeners: list[Tell] = field(factory=list)
    waiters: list[Deferred[str]] = field(factory=list)
    told: list[str] = field(factory=list)


class Images:
    """``host`` names the daemon. ``connect`` answers a client, in whatever thread it is called."""

    def __init__(self, host: str, connect: Callable[[], APIClient], reactor: Any) -> None:
        self._host = host
        self._connect = connect
        self._reactor = reactor
        self._threads = ThreadPool.shared(f"docker images {host}", TRANSFERS, reactor)
        self._jobs: dict[Wanted, _Job] = {}

    def get(self, wanted: Wanted, tell: Tell) -> Deferred[str]:
        """The image's id, once it is there. ``tell`` gets the progress, line by line.

        Cancelling gives up one's own wait; the build or pull goes on, for the others and for the next who want it.
        """
        job = self._jobs.get(wanted)
        if job is None:
            job = self._jobs[wanted] = _Job()
            progress = _Progress(self._host, lambda line: self._reactor.callFromThread(self._told, wanted, line))
            answer = self._threads.run(self._ensure, wanted, progress, adopt=discard)
            answer.addBoth(lambda result: self._done(wanted, result))
        else:
            for line in job.told:
                tell(line)
        job.listeners.append(tell)
        waiter: Deferred[str] = Deferred(lambda _: job.listeners.remove(tell))
        job.waiters.append(waiter)
        return waiter

    def _told(self, wanted: Wanted, line: str) -> None:
        job = self._jobs.get(wanted)
        if job is None:
            return
        log.debug("{host}: {image}: {line}", host=self._host, image=wanted.reference, line=line)
        job.told.append(line)
        for tell in list(job.listeners):
            tell(line)

    def _done(self, wanted: Wanted, result: Any) -> None:
        job = self._jobs.pop(wanted)
        for waiter in job.waiters:
            if waiter.called:
                continue
            if isinstance(result, Failure):
                waiter.errback(Failure(result.value))
            else:
                waiter.callback(result)

    def _ensure(self, wanted: Wanted, progress: _Progress) -> str:
        """Blocks."""
        try:
            return ensure(self._connect(), wanted, self._host, progress)
        except Exception as error:
            raise translate(error, self._host) from error


def ensure(client: APIClient, wanted: Wanted, host: str, progress: _Progress) -> str:
    """The image's id; built or pulled if it is not there, or if it is to be pulled always."""
    there = find(client, wanted.reference)
    if there is None and wanted.dockerfile is not None:
        return _build(client, wanted, progress)
    if wanted.autopull and (there is None or wanted.always_pull):
        return _pull(client, wanted.reference, progress)
    if there is None:
        remedy = "build or pull it there, give a dockerfile, or set autopull=True"
        raise LatentWorkerConfigurationError(f"{host} has no image {wanted.reference}; {remedy}")
    return there


def find(client: APIClient, reference: str) -> str | None:
    """By name, name and tag, digest or id: the daemon knows what a reference means."""
    try:
        return str(_inspect(client, reference)["Id"])
    except ImageNotFound:
        return None


def _inspect(client: APIClient, reference: str) -> dict[str, Any]:
    document: dict[str, Any] = client.inspect_image(reference)  # type: ignore[no-untyped-call]  # the stubs leave it out
    return document


def _build(client: APIClient, wanted: Wanted, progress: _Progress) -> str:
    progress.say(f"building image {wanted.reference}")
    more: dict[str, Any] = {
        "tag": wanted.reference,
        "rm": True,
        "forcerm": True,
        "pull": wanted.always_pull,
        "target": wanted.target or None,
        "buildargs": dict(wanted.buildargs) or None,
        "decode": True,
    }
    assert wanted.dockerfile is not None
    if wanted.custom_context:
        try:
            with open(wanted.dockerfile, "rb") as context:
                output = client.build(fileobj=context, custom_context=True, encoding=wanted.encoding, **more)
                progress.follow(output, f"building {wanted.reference}")
        except OSError as error:
            raise LatentWorkerConfigurationError(
                f"the context {wanted.dockerfile} can't be read ({error.strerror}); with custom_context, dockerfile is the path "
                "of a tar file"
            ) from error
    else:
        output = client.build(fileobj=io.BytesIO(wanted.dockerfile.encode()), **more)
        progress.follow(output, f"building {wanted.reference}")
    return str(_inspect(client, wanted.reference)["Id"])


def _pull(client: APIClient, reference: str, progress: _Progress) -> str:
    progress.say(f"pulling image {reference}")
    repository, tag = parse_repository_tag(reference)
    output = client.pull(repository, tag=tag or "latest", stream=True, decode=True)
    progress.follow(output, f"pulling {reference}")
    return str(_inspect(client, reference)["Id"])


class _Progress:
    """Turns the daemon's stream of objects into lines worth reading. Used by one thread."""

    def __init__(self, host: str, say: Tell) -> None:
        self.host = host
        self.say = say
        self._lines = 0
        self._layers: dict[str, tuple[int, int]] = {}
        self._percent = 0
        self._last: list[str] = []

    def follow(self, output: Iterator[dict[str, Any]], subject: str) -> None:
        """Raises what an error in the stream means, with the last lines before it."""
        for item in output:
            if "error" in item or "errorDetail" in item:
                text = str(item.get("error") or item["errorDetail"].get("message"))
                before = "\n".join(self._last[-20:])
                raise translate_text(f"{text}\n{before}".rstrip(), self.host, subject)
            if "stream" in item:
                for line in str(item["stream"]).splitlines():
                    self._line(line)
            elif "status" in item:
                self._status(item)

    def _line(self, line: str) -> None:
        if not line.strip():
            return
        self._last = [*self._last[-99:], line]
        self._lines += 1
        if self._lines <= LINES:
            self.say(line)
        elif self._lines == LINES + 1:
            self.say("(and more)")

    def _status(self, item: dict[str, Any]) -> None:
        detail = item.get("progressDetail") or {}
        if item["status"] != "Downloading":
            if not item.get("id") or item["status"] in ("Pull complete", "Already exists", "Download complete"):
                self._line(f"{item['id']}: {item['status']}" if item.get("id") else item["status"])
            return
        self._layers[item.get("id", "")] = (int(detail.get("current") or 0), int(detail.get("total") or 0))
        done, total = (sum(numbers) for numbers in zip(*self._layers.values(), strict=True))
        percent = done * 100 // total if total else 0
        if percent >= self._percent + STEP:
            self._percent = percent - percent % STEP
            self.say(f"{done / 1e6:.1f} of {total / 1e6:.1f} MB ({percent} %)")
