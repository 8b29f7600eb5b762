"""What a plugin promises of its declaration."""

from __future__ import annotations

import re
import threading
from typing import Any

from latent.errors import ConfigError
from latent.testing.contract.case import ContractCase
from latent.testing.contract.promises import promise, said
from latent.testing.contract.provider import Mistake
from latent.worker.base import ProviderStatus
from latent.worker.results import live_result, provider_status

NOBODYS = "no_such_keyword_of_any_plugin"

COMMON = (
    Mistake("no_such_keyword_of_any_plugin", keywords={NOBODYS: 1}),
    Mistake("build_wait_timeout", keywords={"build_wait_timeout": "soon"}),
    Mistake("max_builds", keywords={"max_builds": 0}),
)
"""Wrong for every worker: a plugin that hands on what is not its own has them reported."""

mistakes_are_told = promise(
    "mistakes-are-told",
    "checkConfig reports every mistake of a declaration, all at once, as a ConfigError that names the worker and the keyword.",
)
nothing_happens = promise("declaring-touches-nothing", "Constructing a worker changes nothing in the world.")
declared_again = promise("declared-again", "A declaration can be read again while its instance is up, and the instance stays.")
answers_anyone = promise(
    "asking-changes-nothing", "check_live, provider_status and list_scope answer outside any attempt, and change nothing."
)


class Declaring(ContractCase):
    @mistakes_are_told
    async def test_mistakes(self) -> None:
        if not self.provider.mistakes:
            self.broken(f"{type(self.provider).__name__} has no mistakes to try; give Provider.mistakes a wrong declaration")
        for mistake in (*COMMON, *self.provider.mistakes):
            errors = self.errors_of(mistake.keywords)
            self.must_say(errors, mistake.says, mistake.keywords)

    @mistakes_are_told
    async def test_all_mistakes_at_once(self) -> None:
        for mistake in self.provider.mistakes:
            keywords = {**mistake.keywords, NOBODYS: 1}
            errors = self.errors_of(keywords)
            self.must_say(errors, mistake.says, keywords)
            self.must_say(errors, NOBODYS, keywords)

    def errors_of(self, keywords: Any) -> list[str]:
        try:
            self.provider.make_worker(self.provider.names[0], **keywords)
        except ConfigError as error:
            return error.errors
        except Exception as error:
            self.broken(f"a worker with {keywords} raised {said(error)}")
        else:
            self.broken(f"a worker with {keywords} was taken as if nothing were wrong")

    def must_say(self, errors: list[str], what: str, keywords: Any) -> None:
        """One of the errors says so, and whose it is."""
        name = self.provider.names[0]
        if not any(re.search(what, error) and name in error for error in errors):
            self.broken(f"of a worker {name!r} with {keywords} no error names the worker and says {what!r}, but: {errors}")

    @nothing_happens
    async def test_declaring(self) -> None:
        threads = set(threading.enumerate())
        calls = set(self.provider.reactor.getDelayedCalls())
        worker = self.provider.make_worker(self.provider.names[0])
        if more := [thread.name for thread in set(threading.enumerate()) - threads]:
            self.broken(f"it started the threads {more}")
        if waiting := set(self.provider.reactor.getDelayedCalls()) - calls:
            self.broken(f"it made the delayed calls {waiting}")
        await self.only(set(), "after a worker was constructed")
        if worker.name != self.provider.names[0]:
            self.broken(f"a worker that was declared as {self.provider.names[0]!r} is called {worker.name!r}")

    @nothing_happens
    async def test_a_pool(self) -> None:
        """One declaration can be a pool of workers."""
        names = [worker.name for worker in self.provider.make_worker("kit-{n}", count=3).expand()]
        if names != ["kit-1", "kit-2", "kit-3"]:
            self.broken(f"a worker 'kit-{{n}}' with count=3 stands for {names}")

    @declared_again
    async def test_declared_again(self) -> None:
        worker, instance = await self.started()
        await worker.set_up()
        await self.only({instance}, "after reconfigService was called once more")
        good, message = await worker.check()
        if not good:
            self.broken(f"after reconfigService was called once more check_instance answers: {message}")
        await worker.stop()
        await self.only(set(), "after a stop that followed a second reconfigService")

    @answers_anyone
    async def test_questions(self) -> None:
        worker = await self.worker(idle=True)
        plugin = worker.plugin
        scopes = [plugin.list_scope(), (await self.worker(idle=True)).plugin.list_scope()]
        if not isinstance(scopes[0], str) or scopes[0] != scopes[1]:
            self.broken(f"list_scope of two workers that are declared alike is {scopes[0]!r} and {scopes[1]!r}")
        status = provider_status(plugin, plugin.provider_status())
        if isinstance(status, ProviderStatus) and not (status.subject and status.message):
            self.broken(f"provider_status is {status}; say of which provider, and how it is")
        mistakes = live_result(plugin, await self.controller.ask(plugin.check_live))
        if mistakes:
            self.broken(f"check_live finds something wrong with the worker of the test: {mistakes}")
        await self.only(set(), "after check_live")
