"""A bot that is told to end while it has a lease: `python -m tests.killpoints.bot PORT-FILE TOKEN`.

It says that it terminates, ends what it has, and goes. While nobody answers it says the same again.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc

from tests.gateways.bots.client import ACTIVE, BOT_TERMINATING, COMPLETED, Wire, session_of

TYPE = "type.googleapis.com/some.Work"


async def patiently(call: Any) -> Any:
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            await asyncio.sleep(0.1)


async def main() -> None:
    port_file, token = sys.argv[1:]
    async with Wire(int(Path(port_file).read_text()), token) as wire:
        session = session_of("bot")
        session.name = (await patiently(lambda: wire.create(session, 10))).name
        while not session.leases:
            answer = await patiently(lambda: wire.update(session, 10))
            session.leases.extend(answer.leases)
        (lease,) = session.leases
        lease.state = ACTIVE
        await patiently(lambda: wire.update(session, 10))
        session.status = BOT_TERMINATING
        await patiently(lambda: wire.update(session, 10))
        lease.state = COMPLETED
        lease.result.type_url, lease.result.value = TYPE, b"done"
        await patiently(lambda: wire.update(session, 10))


if __name__ == "__main__":
    asyncio.run(main())
