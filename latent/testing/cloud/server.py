"""The cloud as a process of its own: it outlives the controllers that are killed, and its instances are real agents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from latent.testing.cloud.cloud import Cloud
from latent.testing.cloud.lines import Documents
from latent.testing.cloud.values import CloudError

log = Logger()

HOST = "127.0.0.1"


async def listen(reactor: Any, cloud: Cloud, port: int = 0) -> Any:
    """Take calls and orders on loopback, and name the cloud by its address; the port, to be closed by whoever asked for it."""
    listening: Any = await TCP4ServerEndpoint(reactor, port, interface=HOST).listen(_Desk(cloud))
    cloud.name = f"{HOST}:{listening.getHost().port}"
    return listening


class _Desk(Factory):
    noisy = False

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def buildProtocol(self, addr: IAddress | None) -> _Call:
        return _Call(self.cloud)


class _Call(Documents):
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def heard(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            arguments = dict(message.get("arguments", {}))
            if "order" in message:
                self.say({"answer": self._cloud.order(str(message["order"]), **arguments)})
            else:
                self._cloud.request(str(message["call"]), arguments, self.say)
        except CloudError as error:
            self.say({"error": error.kind, "message": str(error)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.say({"error": "invalid", "message": f"{type(error).__name__}: {error}"})


async def serve(reactor: Any, cloud: Cloud, port: int, port_file: Path | None, say: Callable[[str], None]) -> None:
    """Until the reactor stops. ``port_file``: holds the address once calls are taken."""
    listening = await listen(reactor, cloud, port)
    reactor.addSystemEventTrigger("before", "shutdown", listening.stopListening)
    reactor.addSystemEventTrigger("before", "shutdown", cloud.close)
    if port_file is not None:
        draft = port_file.with_name(f"{port_file.name}.new")
        draft.write_text(f"{cloud.name}\n")
        draft.replace(port_file)
    say(cloud.name)
    forever: Deferred[None] = Deferred()
    await forever
