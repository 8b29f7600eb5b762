"""Calls of EC2's API: in threads of their own, under the budget, repeated where nothing was answered."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from latent.errors import LatentWorkerConfigurationError, LatentWorkerThrottled
from latent.worker import ThreadPool, discard
from latent_ec2.account import THREADS, Account
from latent_ec2.faults import CredentialsRefused, NoSuchInstance, Unanswered, translate, unresolved
from latent_ec2.gate import Gate

log = Logger()

T = TypeVar("T")

Answer = dict[str, Any]

FIRST_PAUSE = 1.0
LAST_PAUSE = 20.0
"""Seconds before a call is repeated: the first time, doubling, and the longest."""

MANY = 3
"""How often RunInstances is throttled before it may be for the number of instances that were asked for."""

PATIENCE = 60.0
"""Seconds for which a call that nobody answers is repeated. One that is throttled is repeated until it is cancelled."""

HUNG = 15.0
"""Seconds after boto3's own timeout after which a call counts as hung: it may be stuck before or after its connection."""

TOGETHER = 1000
"""Instances, or other resources, that one call may name."""

PAGE = 1000
"""Rows that one answer may have."""


@define(eq=False)
class Trial:
    """What becomes of a call that may be repeated. ``sent``: when EC2 was last asked, in the clock's seconds; None: never.

    ``calling``: it is being asked now. ``doubt``: it may have done what was asked without an answer. ``given_up``: set by who
    does not want it to be repeated.
    """

    sent: float | None = None
    calling: bool = False
    doubt: bool = False
    given_up: bool = False


class Calls:
    """``down``: why nothing is answered, or all is refused; empty when the last call was answered."""

    def __init__(
        self,
        account: Account,
        reactor: Any,
        *,
        threads: Any = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``threads``: what has `ThreadPool.run`. ``jitter``: 0 to 1, how much of a pause is waited beside the half of it."""
        self.account = account
        self.gate = Gate(reactor)
        self.down = ""
        self.threads = threads or ThreadPool.shared(f"{account.label} {account.endpoint_url or ''}".strip(), THREADS, reactor)
        self._clock = reactor
        self._jitter = jitter
        self._lock = threading.Lock()
        self._client: Any = None

    async def ask(
        self,
        operation: str,
        parameters: Answer,
        *,
        adopt: Callable[[Answer], object] = discard,
        patience: float = PATIENCE,
        turn: float | None = None,
        trial: Trial | None = None,
    ) -> Answer:
        """The answer of an operation of boto3's client. ``adopt`` gets what comes after this was cancelled, or timed out.

        It is repeated when it is throttled, and for ``patience`` seconds when nobody answers; so what makes something needs a
        ClientToken. ``turn``: the clock's seconds at which the budget gave leave for the first call.
        """
        pause, unanswered_since, throttles = FIRST_PAUSE, None, 0
        trial = trial or Trial()
        while True:
            if turn is None:
                turn = await self.gate.requests.take()
            try:
                return await self._tried(trial, operation, parameters, adopt)
            except LatentWorkerThrottled as error:
                throttles += 1
                self.gate.throttled(turn)
                if operation == "run_instances" and throttles >= MANY:
                    self.gate.instances.throttled(turn)
                log.info("{error}", error=error)
                if trial.given_up:
                    raise
            except Unanswered as error:
                now = self._clock.seconds()
                unanswered_since = turn if unanswered_since is None else unanswered_since
                if now - unanswered_since >= patience or trial.given_up:
                    raise
                log.info("{error}; it is asked again", error=error)
            turn = None
            await self.pause(pause * (0.5 + self._jitter() / 2))
            pause = min(pause * 2, LAST_PAUSE)

    async def pages(self, operation: str, parameters: Answer) -> list[Answer]:
        """All of an operation that answers in pages."""
        answers = [await self.ask(operation, parameters)]
        while following := answers[-1].get("NextToken"):
            answers.append(await self.ask(operation, {**parameters, "NextToken": following}))
        return answers

    async def together(
        self, operation: str, ids: Sequence[str], parameters: Callable[[list[str]], Answer]
    ) -> tuple[list[Answer], dict[str, Exception]]:
        """An operation for many at once, where EC2 refuses all for the fault of one: the answers, and who it was.

        Those that EC2 names are left out, the others are asked for in halves.
        """
        answers: list[Answer] = []
        faults: dict[str, Exception] = {}
        waiting = [list(ids[n : n + TOGETHER]) for n in range(0, len(ids), TOGETHER)]
        while waiting:
            some = waiting.pop()
            try:
                answers.append(await self.ask(operation, parameters(some)))
            except (Unanswered, CredentialsRefused) as error:
                faults.update(dict.fromkeys((*some, *(one for group in waiting for one in group)), error))
                break
            except Exception as error:
                named = set(some) & set(error.ids) if isinstance(error, NoSuchInstance) else set()
                if named or len(some) == 1:
                    faults.update(dict.fromkeys(named or some, error))
                    waiting += [left] if (left := [one for one in some if one not in named]) and named else []
                else:
                    half = len(some) // 2
                    waiting += [some[:half], some[half:]]
        return answers, faults

    def pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._clock, seconds, lambda: None)

    async def _tried(self, trial: Trial, operation: str, parameters: Answer, adopt: Callable[[Answer], object]) -> Answer:
        trial.sent, trial.calling = self._clock.seconds(), True
        try:
            return await self._once(operation, parameters, adopt)
        except Unanswered as error:
            trial.doubt = trial.doubt or error.sent
            raise
        except CancelledError:
            trial.doubt = True
            raise
        finally:
            trial.calling = False

    async def _once(self, operation: str, parameters: Answer, adopt: Callable[[Answer], object]) -> Answer:
        self.gate.calls[operation] += 1
        running = self.threads.run(self._blocking, operation, parameters, adopt=adopt)
        running.addTimeout(self.account.timeout + HUNG, self._clock)
        try:
            answer: Answer = await running
        except TimeoutError as error:
            where = f"{self.account.label}: {operation}"
            hung = Unanswered(f"{where}: no answer in {self.account.timeout + HUNG:.0f} s", sent=True)
            self._note(hung)
            raise hung from error
        except Exception as error:
            self._note(error)
            raise
        if self.down:
            log.info("{label} answers again", label=self.account.label)
        self.down = ""
        return answer

    def _note(self, error: Exception) -> None:
        if isinstance(error, CredentialsRefused):
            self._client = None  # those that boto3 finds by itself may have been renewed
        if isinstance(error, Unanswered | CredentialsRefused):
            if not self.down:
                log.warn("{error}", error=error)
            self.down = str(error)

    # --- in a thread -----------------------------------------------------------------------------------------------------------

    def _blocking(self, operation: str, parameters: Answer) -> Answer:
        try:
            answer: Answer = getattr(self._connected(), operation)(**parameters)
            return answer
        except Exception as error:
            if unresolved(error) and (told := self._no_such_region()):
                raise LatentWorkerConfigurationError(told) from error
            raise translate(error, self.account.label, operation) from error

    def _connected(self) -> Any:
        with self._lock:
            client = self._client
            if client is None:
                client = self._client = self.account.make_client()
            return client

    def _no_such_region(self) -> str:
        region = self.account.region_name
        known = [] if self.account.endpoint_url else self.account.known_regions()
        if not region or not known or region in known:
            return ""
        return f"{self.account.label}: there is no region {region}; correct region: {', '.join(known)}"
