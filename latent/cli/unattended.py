"""A look at the providers without a controller: from master.cfg, and the state that the last one left, if it is there.

Nothing is taken up and nothing begins: the state says what is expected. It is locked meanwhile, so that no controller starts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from latent.cli.conversation import Conversation, Doc, Pause
from latent.cli.exits import CliError, ExitCode, config_error
from latent.cli.place import Place
from latent.cli.reactor import install


def converse(place: Place, conversation: Conversation, tell: Callable[[str], None]) -> Doc:
    """Run the reactor until the conversation is over; its result. Raises CliError. The reactor is of no use afterwards."""
    reactor = install()
    from latent.config.loader import load
    from latent.errors import ConfigError, LatentError

    outcome: list[Any] = []
    with ExitStack() as stack:
        try:
            config = load(place.config)
        except ConfigError as error:
            raise config_error(place.config, error.errors) from None

        def begin() -> None:
            talk = Deferred.fromCoroutine(_converse(place, config, conversation, tell, reactor, stack))
            talk.addBoth(outcome.append).addBoth(lambda _: reactor.stop())

        reactor.callWhenRunning(begin)
        reactor.run()
    if not outcome:
        raise CliError(ExitCode.INTERRUPTED, "interrupted")
    if isinstance(outcome[0], Failure):
        cause = outcome[0].value
        if not isinstance(cause, LatentError):
            outcome[0].raiseException()
        message, _, remedy = str(cause).partition("; ")
        raise CliError(ExitCode.REFUSED if isinstance(cause, ConfigError) else ExitCode.UNAVAILABLE, message, remedy)
    doc: Doc = outcome[0]
    return doc


async def _converse(
    place: Place, config: Any, conversation: Conversation, tell: Callable[[str], None], reactor: Any, stack: ExitStack
) -> Doc:
    from latent.controller.clock import KEPT, WallClock
    from latent.controller.service import Controller
    from latent.store.database import Store
    from latent.web import documents

    url, kept = config.db_url, place.state
    if _is_missing(url):
        # A store of its own, which is gone afterwards: a look must not make a controller.
        tell(f"there is no state of a controller in {place.state}: all instances count as other controllers'")
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latent-leaks-")))
        url = f"sqlite:///{kept / 'latent.sqlite'}"
    store = Store.open(url, kept, reactor=reactor)
    clock = WallClock(reactor, kept / KEPT)
    controller = Controller(config, store, reactor=reactor, clock=clock, state_dir=place.state, jitter=lambda: 0.0)
    try:
        await controller.take_stock()
        try:
            wanted = next(conversation)
            while True:
                if isinstance(wanted, Pause):
                    await deferLater(reactor, wanted.seconds)
                    wanted = conversation.send({})
                else:
                    scan = await (controller.leaks.reap(**wanted.body) if wanted.reap else controller.leaks.scan())
                    wanted = conversation.send(documents.leaks(scan))
        except StopIteration as end:
            doc: Doc = end.value
            return doc
    finally:
        controller.leaks.stop()
        controller.reaper.stop()
        await store.close()


def _is_missing(url: str) -> bool:
    parsed = make_url(url)
    return parsed.get_backend_name() == "sqlite" and not (parsed.database and Path(parsed.database).exists())
