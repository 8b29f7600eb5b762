"""latent as the server of the bots benchmark: a whole controller with its store on disk, told what to do on its standard input.

    python -m benchmarks.bots_server DIRECTORY --workers N [--core C]

Prints one JSON object for each line that it reads, and one with its ``address`` before that. ``submit N SECONDS``: N builds, one
each SECONDS; each payload is the time at which it is submitted. ``usage``: CPU seconds and memory so far. ``--empty``: a server
in the same reactor that answers each call with what it was sent, and does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from twisted.internet import asyncioreactor

asyncioreactor.install()

import grpc  # noqa: E402
import grpc.aio  # noqa: E402
from twisted.internet import reactor, stdio  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402
from twisted.protocols.basic import LineReceiver  # noqa: E402

from latent.cli.assembly import Assembly  # noqa: E402
from latent.gateways.bots.calls import SERVICE  # noqa: E402
from latent.gateways.rpc.listening import OPTIONS  # noqa: E402
from latent.model import BuildRequest, Payload  # noqa: E402
from latent.wire import bots_pb2 as pb  # noqa: E402

MASTER = """
from latent.plugins import worker

c["workers"] = [worker.Worker(f"w{n}", f"password-{n}") for n in range(WORKERS)]
c["protocols"] = {"bots": {}}
"""


class Orders(LineReceiver):
    delimiter = b"\n"

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly

    def lineReceived(self, line: bytes) -> None:
        order, *numbers = line.decode().split()
        done = Deferred.fromCoroutine(getattr(self, order)(*map(float, numbers)))
        done.addCallbacks(lambda answer: print(json.dumps(answer), flush=True), lambda failure: print(failure.getTraceback()))

    async def submit(self, count: float, seconds: float) -> dict[str, Any]:
        for _ in range(int(count)):
            payload = Payload("type.googleapis.com/benchmark.Work", str(time.monotonic_ns()).encode())
            await self._assembly.controller.submit(BuildRequest(builder="bots", payload=payload))
            if seconds:
                await deferLater(reactor, seconds)
        return {"submitted": count}

    async def usage(self) -> dict[str, Any]:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        return {"cpu": time.process_time(), "rss_mb": round(resident / 2**20, 1)}

    async def stop(self) -> dict[str, Any]:
        await self._assembly.stop(fast=True)
        return {}


async def serve(directory: Path, workers: int) -> None:
    master = directory / "master.cfg"
    master.write_text(MASTER.replace("WORKERS", str(workers)))
    assembly = Assembly(master, directory / "state", reactor=reactor, ended=reactor.stop)
    await assembly.start()
    stdio.StandardIO(Orders(assembly))
    print(json.dumps({"address": f"127.0.0.1:{assembly.port('bots')}"}), flush=True)


async def serve_nothing(directory: Path, workers: int) -> None:
    async def create(data: bytes, context: Any) -> bytes:
        session = pb.CreateBotSessionRequest.FromString(data).bot_session
        session.name = "/name"
        return session.SerializeToString()

    async def update(data: bytes, context: Any) -> bytes:
        session = pb.UpdateBotSessionRequest.FromString(data).bot_session
        if not session.leases:
            session.leases.add(id="1", state=pb.PENDING).payload.value = b"work"
        return session.SerializeToString()

    methods = {
        "CreateBotSession": grpc.unary_unary_rpc_method_handler(create),
        "UpdateBotSession": grpc.unary_unary_rpc_method_handler(update),
    }

    async def begin() -> None:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        KEPT.append(server)
        print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)

    await Deferred.fromFuture(asyncio.ensure_future(begin()))


KEPT: list[Any] = []
"""gRPC closes the port of a server that nobody refers to."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--empty", action="store_true")
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Deferred.fromCoroutine((serve_nothing if given.empty else serve)(given.directory, given.workers)).addErrback(
        lambda failure: (failure.printTraceback(sys.stderr), reactor.callLater(0, reactor.stop))
    )
    reactor.run()
