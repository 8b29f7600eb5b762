"""The client of the bots benchmark: any number of bots in one process, the same for whichever server is measured.

    python -m benchmarks.bots_client ADDRESS beat|cycle|park --bots N --seconds S [--core C]

Prints one JSON object. ``beat``: every bot takes a lease, says that it works on it, and says so again as fast as it is answered.
``cycle``: every bot takes leases and ends them at once. ``park``: every bot has a connection of its own, on which its call waits;
a lease's payload is the time at which it was submitted (``time.monotonic_ns``, as text), and what is measured is the time until
the bot has it. A line "parked" is printed when all calls wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import time
from typing import Any

import grpc
import grpc.aio

from latent.wire import bots_pb2 as pb

SERVICE = "/google.devtools.remoteworkers.v1test2.Bots/"
AGAIN = (
    grpc.StatusCode.INTERNAL,  # what the peer says when its database is locked
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)


AT_ONCE = 8
"""Sessions that are made at the same time."""


class Bot:
    def __init__(self, channel: grpc.aio.Channel, bot_id: str) -> None:
        self.session = pb.BotSession(bot_id=bot_id)
        self.session.worker.devices.add(handle="host")
        self.updates = 0
        self.refused = 0
        self.done = 0
        self._create = _method(channel, "CreateBotSession")
        self._update = _method(channel, "UpdateBotSession")

    async def create(self) -> None:
        answer = await self._create(pb.CreateBotSessionRequest(bot_session=self.session))
        self.session.name = answer.name
        self.session.status = pb.OK

    async def update(self, timeout: float | None = None) -> None:
        request = pb.UpdateBotSessionRequest(name=self.session.name, bot_session=self.session)
        try:
            answer = await self._update(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() not in AGAIN:
                raise
            self.refused += 1
            return
        self.updates += 1
        del self.session.leases[:]
        self.session.leases.extend(answer.leases)

    async def begin(self) -> None:
        """Take a lease, and say so."""
        while not self.session.leases:
            await self.update()
        self.session.leases[0].state = pb.ACTIVE
        await self.update()

    async def beat(self, until: float) -> None:
        while time.monotonic() < until:
            await self.update()

    async def cycle(self, until: float) -> None:
        while time.monotonic() < until:
            left = max(0.1, until - time.monotonic())
            if not self.session.leases:
                await self.update(left)
                continue
            lease = self.session.leases[0]
            if lease.state == pb.PENDING:
                lease.state = pb.ACTIVE
            else:
                lease.state = pb.COMPLETED
                self.done += 1
            await self.update(left)

    async def park(self, until: float, waits: list[float]) -> None:
        while (left := until - time.monotonic()) > 0:
            await self.update(max(4.0, left / 0.8))
            for lease in self.session.leases:
                if lease.state == pb.PENDING:
                    waits.append((time.monotonic_ns() - int(lease.payload.value)) / 1e6)
                    lease.state = pb.COMPLETED


def _method(channel: grpc.aio.Channel, name: str) -> Any:
    return channel.unary_unary(
        SERVICE + name,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.BotSession.FromString,
    )


async def main(address: str, mode: str, count: int, seconds: float) -> None:
    own = mode == "park"
    options = (("grpc.use_local_subchannel_pool", 1),)
    shared = [grpc.aio.insecure_channel(address, options=options) for _ in range(count if own else 4)]
    bots = [Bot(shared[n % len(shared)], f"w{n}:password-{n}") for n in range(count)]
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(bot.create() for bot in bots[start : start + AT_ONCE]))
    if mode == "beat":
        await asyncio.gather(*(bot.begin() for bot in bots))
    begun = time.monotonic()
    updates, cpu = sum(bot.updates for bot in bots), time.process_time()
    until = begun + seconds
    print("measuring", flush=True)
    waits: list[float] = []
    if mode == "beat":
        await asyncio.gather(*(bot.beat(until) for bot in bots))
    elif mode == "cycle":
        await asyncio.gather(*(bot.cycle(until) for bot in bots))
    else:
        parking = [asyncio.ensure_future(bot.park(until, waits)) for bot in bots]
        await asyncio.sleep(3)
        print("parked", flush=True)
        await asyncio.wait(parking, timeout=until - time.monotonic())
        for parked in parking:
            parked.cancel()
        await asyncio.gather(*parking, return_exceptions=True)
    took = time.monotonic() - begun
    made = sum(bot.updates for bot in bots) - updates
    found: dict[str, Any] = {
        "updates": made,
        "seconds": round(took, 2),
        "updates_per_second": round(made / took, 1),
        "refused": sum(bot.refused for bot in bots),
        "leases_done": sum(bot.done for bot in bots),
        "client_cpu_ms_per_update": round((time.process_time() - cpu) * 1e3 / max(1, made), 3),
    }
    if mode == "park":
        waits.sort()
        found = {
            "leases": len(waits),
            "submit_to_lease_ms_p50": round(waits[len(waits) // 2], 2) if waits else None,
            "submit_to_lease_ms_p99": round(waits[int(len(waits) * 0.99)], 2) if waits else None,
        }
    print(json.dumps(found), flush=True)
    os._exit(0)  # thousands of connections are closed faster so


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("mode", choices=("beat", "cycle", "park"))
    parser.add_argument("--bots", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--core", type=int)
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(given.address, given.mode, given.bots, given.seconds))
