"""The provider: it takes calls, carries them out when the clock says so, and lets go wrong what it was told to."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from attrs import asdict
from twisted.internet.defer import Deferred, DeferredList

from latent.controller.clock import Clock, Wait
from latent.testing.cloud.account import Account
from latent.testing.cloud.script import Fault, Script
from latent.testing.cloud.values import (
    ATTEMPT,
    CALLS,
    EXITED,
    EXPIRES,
    GONE,
    IMAGES,
    PENDING,
    RUNNING,
    STOPPING,
    WORKER,
    CloudError,
    Entry,
    Instance,
)

Answer = Mapping[str, Any]
"""``{"answer": ...}``, or ``{"error": KIND, "message": ...}``."""

Respond = Callable[[Answer], None]


class Guest(Protocol):
    """What runs in an instance."""

    def start(self, ended: Callable[[str], None]) -> None:
        """``ended`` is called with a message if it ends by itself."""

    def stop(self) -> Deferred[None]:
        """Kill it; fires when nothing of it is left. It may be called again."""

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


class Provider:
    """``clock``: by which everything happens (`seconds` is the time of day). ``seed``: decides all that is left to chance.

    ``boots``: makes what runs in an instance of the image "agent"; None: nothing does. It may be set later.
    ``latency``, ``boot``, ``ending``: seconds until a call is carried out, that an instance is pending, and that it is stopping.
    ``reclaims``: whether it destroys by itself an instance whose agent has ended. ``name``: by which messages know it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        seed: int = 0,
        boots: Callable[[Instance], Guest] | None = None,
        latency: float = 0.0,
        boot: float = 0.0,
        ending: float = 0.0,
        reclaims: bool = False,
        name: str = "in memory",
    ) -> None:
        self.clock = clock
        self.seed = seed
        self.boots = boots
        self.latency, self.boot, self.ending = latency, boot, ending
        self.reclaims = reclaims
        self.name = name
        self.account = Account(seed)
        self.script = Script(seed)
        self.entries: list[Entry] = []
        self.counted: Counter[str] = Counter()
        self.touched: list[str] = []
        self.doubled: list[str] = []
        self.looks_back: tuple[float, bool, frozenset[str]] = (0.0, False, frozenset())
        self.rate: tuple[int, float] | None = None
        self.most: dict[str, int | None] = {"capacity": None, "quota": None}
        self.bad_boots: tuple[int | None, str] = (0, "")
        self._recent: deque[float] = deque()
        self._began = clock.seconds()
        self._guests: dict[str, Guest] = {}
        self._held: list[Callable[[], None]] = []
        self._waits: set[Wait] = set()
        self._closed = False

    def close(self) -> Deferred[None]:
        """Nothing happens any more, and nobody is answered; fires when nothing runs in any instance."""
        self._closed = True
        for wait in self._waits:
            if wait.active():
                wait.cancel()
        self._waits.clear()
        self._held.clear()
        stopping = [guest.stop() for guest in self._guests.values()]
        self._guests.clear()
        return DeferredList(stopping, consumeErrors=True).addCallback(lambda _: None)

    # --- calls ---------------------------------------------------------------------------------------------------------------

    def request(self, call: str, arguments: Mapping[str, Any], respond: Respond) -> None:
        """Take a call. ``respond`` is called later, once, or not at all, or twice."""
        self._later(self.latency, partial(self._arrived, call, arguments, respond))

    def _arrived(self, call: str, arguments: Mapping[str, Any], respond: Respond) -> None:
        self.counted[call] += 1
        subject = self._subject(arguments)
        self.script.called(call, subject)
        carry_out = partial(self._carry_out, call, arguments, subject)
        try:
            if call not in CALLS:
                raise CloudError("invalid", f"there is no call {call!r}; the cloud has {', '.join(CALLS)}")
            self._check_rate()
        except CloudError as error:
            self.note(call, subject, str(error))
            respond(_refusal(error))
            return
        fault = self.script.take(call, subject, subject.partition("#")[0])
        if fault is None:
            respond(carry_out())
        else:
            self._go_wrong(fault, call, subject, carry_out, respond)

    def _go_wrong(self, fault: Fault, call: str, subject: str, carry_out: Callable[[], Answer], respond: Respond) -> None:
        self.note(fault.kind, subject, f"{call}{', carried out' if fault.done else ''}")

        def do(answer: Answer | None) -> None:
            respond(carry_out() if answer is None else answer)

        match fault.kind:
            case "fail":
                if fault.done:
                    carry_out()
                message = fault.message or f"the cloud could not {call}: {fault.error}"
                respond(_refusal(CloudError(fault.error, message)))
            case "hang":
                self._held.append(partial(do, carry_out() if fault.done else None))
            case "late":
                self._later(fault.seconds, partial(do, carry_out() if fault.done else None))
            case "twice":
                first, second = carry_out(), carry_out()
                respond(first)
                respond(second)
            case "ignore":
                respond(self._as_if(call, subject))

    def _as_if(self, call: str, subject: str) -> Answer:
        if call != "destroy":
            return {"answer": None}
        mine = next((one for one in self.account if subject in (one.id, str(one.attempt))), None)
        return {"answer": None if mine is None else {**mine.to_json(), "state": STOPPING}}

    def _carry_out(self, call: str, arguments: Mapping[str, Any], subject: str) -> Answer:
        try:
            answer = getattr(self, f"_call_{call}")(**arguments)
        except CloudError as error:
            self.note(call, subject, f"refused: {error}")
            return _refusal(error)
        except TypeError as error:
            return _refusal(CloudError("invalid", f"{call}: {error}"))
        if call in ("create", "destroy", "tag"):
            self.note(call, subject, f"{answer['id']} is {answer['state']}")
        return {"answer": answer}

    def _call_create(
        self, token: str, tags: Mapping[str, str], image: str, environment: Mapping[str, str], expires_in: float | None = None
    ) -> Any:
        if image not in IMAGES:
            raise CloudError("image", f"there is no image {image!r}; the cloud has {', '.join(IMAGES)}")
        made = self.account.made(token)
        if made is not None:
            return made.to_json()
        existing = sum(one.exists for one in self.account)
        for kind, most in self.most.items():
            if most is not None and existing >= most:
                what = "the cloud has no room" if kind == "capacity" else "the account may not have more"
                raise CloudError(kind, f"{what} ({existing} instances)")
        tags = {**tags, **self._expires(expires_in)}
        instance = self.account.create(self.clock.seconds(), token, tags, image, environment)
        twins = [one.id for one in self.account if one.exists and one.whose == instance.whose and not one.foreign]
        if len(twins) > 1 and instance.attempt is not None and not self.account.ignores_tokens:
            self.doubled.append(f"{instance.attempt} has several instances at once: {', '.join(twins)}")
        self._later(self.boot, partial(self._boot, instance.id))
        return instance.to_json()

    def _call_describe(self, id: str) -> Any:
        return self.account.as_of(id, self._looking_at("describe", id)).to_json()

    def _call_list(self, tags: Mapping[str, str] | None = None) -> Any:
        wanted = (tags or {}).items()
        subject = self._subject({"tags": tags or {}})
        found = self.account.existing(self._looking_at("list", subject))
        return [one.to_json() for one in found if wanted <= one.tags.items()]

    def _call_destroy(self, id: str) -> Any:
        self.account.get(id)
        self._touch(id, "destroyed")
        return self.end(id).to_json()

    def _call_tag(self, id: str, tags: Mapping[str, str], expires_in: float | None = None) -> Any:
        self._touch(id, "tagged")
        tags = {**self.account.get(id).tags, **tags, **self._expires(expires_in)}
        return self.account.change(self.clock.seconds(), id, tags=tags).to_json()

    def _expires(self, seconds: float | None) -> dict[str, str]:
        return {} if seconds is None else {EXPIRES: f"{self.clock.seconds() + seconds:.3f}"}

    def _call_images(self) -> Any:
        return list(IMAGES)

    def _touch(self, instance_id: str, how: str) -> None:
        instance = self.account.get(instance_id)
        if instance.state not in (STOPPING, GONE) and (instance.foreign or (instance.protected and how == "destroyed")):
            kind = "foreign" if instance.foreign else "protected"
            self.touched.append(f"{instance.id}, which is {kind}, was {how}")

    def _looking_at(self, call: str, subject: str) -> float:
        """The moment of which the call is told."""
        seconds, ragged, calls = self.looks_back
        if call not in calls:
            return self.clock.seconds()
        return self.clock.seconds() - seconds * (self.script.chance("lag", call, subject) if ragged else 1.0)

    def _check_rate(self) -> None:
        if self.rate is None:
            return
        calls, seconds = self.rate
        now = self.clock.seconds()
        while self._recent and self._recent[0] <= now - seconds:
            self._recent.popleft()
        if len(self._recent) >= calls:
            raise CloudError("throttled", f"more than {calls} calls in {seconds:g} s; call less often")
        self._recent.append(now)

    def _subject(self, arguments: Mapping[str, Any]) -> str:
        """On whose behalf a call is made: an attempt where that is known."""
        tags = arguments.get("tags") or {}
        instance_id = str(arguments.get("id", ""))
        if instance_id:
            try:
                tags = self.account.get(instance_id).tags
            except CloudError:
                return instance_id
        return f"{tags[WORKER]}#{tags[ATTEMPT]}" if WORKER in tags and ATTEMPT in tags else instance_id

    # --- instances -----------------------------------------------------------------------------------------------------------

    def _boot(self, instance_id: str) -> None:
        instance = self.account.get(instance_id)
        if instance.state != PENDING:
            return
        left, message = self.bad_boots
        if left is None or left > 0:
            self.bad_boots = (None if left is None else left - 1, message)
            self.exited(instance_id, message)
            return
        self._change(instance_id, state=RUNNING)
        if instance.image == "agent" and self.boots is not None:
            guest = self._guests[instance_id] = self.boots(instance)
            guest.start(partial(self.exited, instance_id))
        subject = str(instance.attempt or instance_id)
        if (fate := self.script.fate(subject, subject.partition("#")[0])) is not None:
            self._later(fate[1], partial(self._befall, instance_id, fate[0]))

    def _befall(self, instance_id: str, fate: str) -> None:
        if self.account.get(instance_id).state == RUNNING:
            getattr(self, fate)(instance_id)

    def exited(self, instance_id: str, message: str) -> None:
        """What ran in it has ended."""
        if not self._closed and self.account.get(instance_id).state in (PENDING, RUNNING):
            self._change(instance_id, state=EXITED, message=message)
            self._kill(instance_id)
            if self.reclaims:
                self.end(instance_id)

    def end(self, instance_id: str) -> Instance:
        """Destroy it, as was asked for; it is gone after ``ending`` seconds, and when nothing runs in it."""
        instance = self.account.get(instance_id)
        if instance.state in (STOPPING, GONE):
            return instance
        self._change(instance_id, state=STOPPING)
        self._kill(instance_id).addBoth(lambda _: self._later(self.ending, partial(self.gone, instance_id)))
        return self.account.get(instance_id)

    def gone(self, instance_id: str) -> None:
        """It is there no more."""
        self._kill(instance_id)
        self._change(instance_id, state=GONE)

    def freeze_instance(self, instance_id: str, frozen: bool) -> None:
        self._change(instance_id, responds=not frozen)
        guest = self._guests.get(instance_id)
        if guest is not None:
            guest.freeze() if frozen else guest.thaw()

    def _kill(self, instance_id: str) -> Deferred[None]:
        guest = self._guests.pop(instance_id, None)
        if guest is None:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        return guest.stop()

    def _change(self, instance_id: str, **changes: Any) -> None:
        before = self.account.get(instance_id)
        after = self.account.change(self.clock.seconds(), instance_id, **changes)
        if (after.state, after.responds) != (before.state, before.responds):
            words = after.state if after.responds else f"{after.state}, does not respond"
            self.note("instance", str(after.attempt or after.id), f"{after.id} is {words} {after.message}".rstrip())

    # --- time, and what is told ----------------------------------------------------------------------------------------------

    def release(self) -> None:
        """What hangs is carried out, where that was not yet, and answered."""
        held, self._held = self._held, []
        for call in held:
            call()

    def note(self, what: str, subject: str, text: str = "") -> None:
        self.entries.append(Entry(round(self.clock.seconds() - self._began, 3), what, subject, text))

    def entry_documents(self) -> list[dict[str, Any]]:
        return [asdict(entry) for entry in self.entries]

    def _later(self, seconds: float, call: Callable[[], object]) -> object:
        """In the order of the clock; also what is due at once is not done before the caller goes on."""
        if self._closed:
            return None

        def due() -> None:
            self._waits.discard(wait)
            call()

        wait = self.clock.callLater(seconds, due)
        self._waits.add(wait)
        return None


def _refusal(error: CloudError) -> Answer:
    return {"error": error.kind, "message": str(error)}
