"""The program `latent-agent`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from latent.agent.guard import ForkedGuard
from latent.agent.options import Options, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; returns its exit code (`latent.agent.options.EPILOG`)."""
    options = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s latent-agent %(levelname)s: %(message)s")
    # Before gRPC is imported and anything starts a thread.
    guard = ForkedGuard()
    try:
        return asyncio.run(_run(options, guard))
    finally:
        guard.close()


async def _run(options: Options, guard: ForkedGuard) -> int:
    from latent.agent.core import Agent

    agent = Agent(options, os.environ, guard)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    return await agent.run()


if __name__ == "__main__":
    sys.exit(main())
