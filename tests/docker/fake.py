"""A daemon's client that does what a test says, for what no real daemon can be made to do."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Iterator
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound
from requests import Response
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.worker.kit import HandReactor


def api_error(status: int, explanation: str, kind: type[APIError] = APIError) -> APIError:
    response = Response()
    response.status_code = status
    return kind(f"{status}: {explanation}", response=response, explanation=explanation)


class ClockedReactor(Clock, HandReactor):
    """Time stands still, and what threads hand in is done when the test waits."""

    def __init__(self) -> None:
        Clock.__init__(self)
        HandReactor.__init__(self)

    def answer(self, deferred: Deferred[Any]) -> Any:
        """Wait for it, doing what threads hand in meanwhile."""
        answers: list[Any] = []
        deferred.addBoth(answers.append)
        while not answers:
            self.turn()
        if isinstance(answers[0], Failure):
            answers[0].raiseException()
        return answers[0]


class Events:
    """A stream of events that the test fills; None ends it, an exception is raised from it."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()

    def put(self, item: Any) -> None:
        self._queue.put(item)

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[Any]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


class FakeClient:
    """Containers by name. ``faults``: method -> what it raises, or is called in its place; ``calls`` counts."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, Any] = {}
        self.calls: Counter[str] = Counter()
        self.streams: queue.Queue[Events] = queue.Queue()

    def _called(self, method: str) -> None:
        self.calls[method] += 1
        fault = self.faults.get(method)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            fault()

    def set(self, name: str, **state: Any) -> None:
        self.there[name]["State"].update(state)

    # --- the part of docker.APIClient that the plugin uses ---------------------------------------------------------------------

    def close(self) -> None:
        pass

    def ping(self) -> bool:
        self._called("ping")
        return True

    def info(self) -> dict[str, Any]:
        self._called("info")
        return {"InitCommit": {"ID": ""}}

    def events(self, **_: Any) -> Events:
        self._called("events")
        stream = Events()
        self.streams.put(stream)
        return stream

    def inspect_image(self, image: str) -> dict[str, Any]:
        self._called("inspect_image")
        if image == "missing":
            raise api_error(404, f"No such image: {image}", ImageNotFound)
        return {"Id": f"id of {image}"}

    def create_host_config(self, **keywords: Any) -> dict[str, Any]:
        return keywords

    def create_container(self, image: str, command: Any, *, name: str, labels: dict[str, str], **_: Any) -> dict[str, Any]:
        self._called("create_container")
        self.there[name] = {
            "Id": f"id-{name}",
            "Name": f"/{name}",
            "Config": {"Labels": labels},
            "State": {"Status": "created", "OOMKilled": False},
            "Mounts": [],
        }
        return {"Id": f"id-{name}"}

    def start(self, container: str) -> None:
        self._called("start")
        self._get(container)["State"]["Status"] = "running"

    def inspect_container(self, container: str) -> dict[str, Any]:
        self._called("inspect_container")
        return self._get(container)

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        self._called("containers")
        return [{"Id": c["Id"], "Labels": c["Config"]["Labels"], "Created": 0} for c in self.there.values()]

    def networks(self, **_: Any) -> list[Any]:
        return []

    def volumes(self, **_: Any) -> dict[str, Any]:
        return {"Volumes": None}

    def logs(self, container: str, **_: Any) -> bytes:
        return b"last words\n"

    def stop(self, container: str, timeout: int) -> None:
        self._called("stop")

    def remove_container(self, container: str, **_: Any) -> None:
        self._called("remove_container")
        self.gone(container)

    def wait(self, container: str, **_: Any) -> None:
        self._called("wait")
        self.gone(container)

    def gone(self, container: str) -> None:
        self.there = {name: one for name, one in self.there.items() if container not in (name, one["Id"])}

    def _get(self, container: str) -> dict[str, Any]:
        for name, one in self.there.items():
            if container in (name, one["Id"]):
                return one
        raise api_error(404, f"No such container: {container}", NotFound)
