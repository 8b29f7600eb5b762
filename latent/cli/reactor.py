"""The reactor of this process: asyncio's, because gRPC needs it. The only module that imports the global one."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any


def install() -> Any:
    """Install it, before anything else imports the reactor or gRPC, and return it. Installing it again is harmless.

    With fork support gRPC would kill some of the children that Twisted forks (specs/grpc-in-twisted.md, 1).
    """
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    from twisted.internet import asyncioreactor
    from twisted.internet.main import installReactor

    if "twisted.internet.reactor" not in sys.modules:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        steady = asyncioreactor.AsyncioSelectorReactor(loop)
        # Twisted's own reads the wall: when that is set back, every call that waits would wait so much longer.
        steady.seconds = time.monotonic
        installReactor(steady)
    from twisted.internet import reactor

    if not isinstance(reactor, asyncioreactor.AsyncioSelectorReactor):
        raise RuntimeError(f"another reactor is installed already: {reactor!r}")
    return reactor
