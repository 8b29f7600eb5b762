"""What a test tells the cloud to do, and asks it, whether it is in the same process or one of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import asdict

from latent.testing.cloud.script import Doom, Fault
from latent.testing.cloud.values import FATES, Entry, Instance, Leak


class Orders:
    """Faults strike calls in the order in which they are given, each call at most one. No order is a call: no fault touches it.

    ``call``: create, describe, list, destroy, tag, images, or "*" for any. ``times``: how often; None for always. ``skip``: how
    many calls pass before. ``chance``: from 0 to 1. ``worker``: whose calls; "" for all. ValueError for what there is not.
    """

    seed: int

    def order(self, what: str, /, **arguments: Any) -> Any:
        """Give one order by its name; answers what JSON can say."""
        raise AssertionError(f"{type(self).__name__} takes no orders")

    # --- calls that go wrong -------------------------------------------------------------------------------------------------

    def fail(self, call: str, error: str = "internal", message: str = "", *, done: bool = False, **which: Any) -> None:
        """The call is refused with an error (`REFUSALS`); ``done``: it is carried out all the same."""
        self._fault(Fault(kind="fail", call=call, error=error, message=message, done=done, **which))

    def hang(self, call: str, *, done: bool = False, **which: Any) -> None:
        """The call is not answered before `heal`. ``done``: it is carried out at once, else then."""
        self._fault(Fault(kind="hang", call=call, done=done, **which))

    def late(self, call: str, seconds: float, *, done: bool = True, **which: Any) -> None:
        """The call is answered so much later. ``done``: it is carried out at once, else then."""
        self._fault(Fault(kind="late", call=call, seconds=seconds, done=done, **which))

    def twice(self, call: str, **which: Any) -> None:
        """The call is carried out twice, and answered twice."""
        self._fault(Fault(kind="twice", call=call, **which))

    def ignore(self, call: str, **which: Any) -> None:
        """The call is answered as if it had been carried out: a destroy that destroys nothing."""
        self._fault(Fault(kind="ignore", call=call, **which))

    def weather(self, chance: float, *, late: float = 30.0, within: float = 120.0) -> None:
        """Anything may happen from now on: a call goes wrong with this chance, in one of six ways, and so does an instance,
        within so many seconds. What happens, the seed decides.

        ``late``: how much later answers come that are late.
        """
        always: dict[str, Any] = {"times": None, "chance": chance / 6}
        self.fail("*", "internal", "it rains", **always)
        self.fail("*", "throttled", "it pours", done=True, **always)
        self.hang("*", **always)
        self.hang("*", done=True, **always)
        self.late("*", late, **always)
        self.twice("*", **always)
        for fate in FATES:
            self.doom(fate, within, times=None, chance=chance / len(FATES))

    def _fault(self, fault: Fault) -> None:
        self.order("fault", **asdict(fault))

    def heal(self) -> None:
        """No more faults, limits or lag from now on; the calls that hang are answered. What they have done stays."""
        self.order("heal")

    # --- how the provider is -------------------------------------------------------------------------------------------------

    def lag(self, seconds: float, *, ragged: bool = False, calls: Iterable[str] = ("list",)) -> None:
        """Eventual consistency: these calls (list, describe) tell what was true ``seconds`` ago.

        ``ragged``: each call looks back for a time of its own, up to that: what one shows the next may not.
        """
        self.order("lag", seconds=seconds, ragged=ragged, calls=list(calls))

    def throttle(self, calls: int | None, seconds: float = 1.0) -> None:
        """Calls above so many in any ``seconds`` are refused; None: none is."""
        self.order("throttle", calls=calls, seconds=seconds)

    def capacity(self, most: int | None) -> None:
        """A create that would make more instances than this is refused for lack of room; None: there is always room."""
        self.order("capacity", most=most)

    def quota(self, most: int | None) -> None:
        """The same, by the account's limit."""
        self.order("quota", most=most)

    def ignore_tokens(self, ignores: bool = True) -> None:
        """A create that is repeated makes another instance."""
        self.order("ignore_tokens", ignores=ignores)

    def timing(self, *, latency: float | None = None, boot: float | None = None, ending: float | None = None) -> None:
        """Seconds from now on: until a call is carried out; that an instance is pending; that it is stopping. None: as before."""
        self.order("timing", latency=latency, boot=boot, ending=ending)

    def boot_fails(self, times: int | None = 1, message: str = "the kernel panicked") -> None:
        """The next instances exit before anything runs in them."""
        self.order("boot_fails", times=times, message=message)

    # --- what happens to instances -------------------------------------------------------------------------------------------

    def vanish(self, instance_id: str) -> None:
        """It is gone at once, without a word. CloudError (unknown) where there is none, as for those below."""
        self.order("vanish", instance_id=instance_id)

    def exit(self, instance_id: str, message: str = "exited with code 1") -> None:
        """What runs in it ends; it is there until it is destroyed."""
        self.order("exit", instance_id=instance_id, message=message)

    def freeze(self, instance_id: str) -> None:
        """It hangs: nothing in it moves, and the provider sees that it does not respond."""
        self.order("freeze", instance_id=instance_id)

    def thaw(self, instance_id: str) -> None:
        """It goes on as if nothing had been."""
        self.order("thaw", instance_id=instance_id)

    def doom(self, fate: str, within: float, *, times: int | None = 1, chance: float = 1.0, worker: str = "") -> None:
        """The next instances vanish, exit or freeze ("vanish", "exit", "freeze") within so many seconds of running."""
        self.order("doom", **asdict(Doom(fate=fate, within=within, times=times, chance=chance, worker=worker)))

    def plant(
        self,
        worker: str = "w",
        attempt: int = 1,
        *,
        controller_id: str = "",
        tags: Mapping[str, str] | None = None,
        foreign: bool = True,
        age: float = 0.0,
    ) -> Instance:
        """An instance that no plugin asked for. ``foreign``: nobody may touch it, else it counts as a leak like any other.

        ``controller_id`` "": it has none of our tags, only ``tags``. ``age``: how many seconds ago it was made.
        """
        ours = {} if not controller_id else {"controller_id": controller_id, "worker": worker, "attempt": attempt}
        return Instance.from_json(self.order("plant", tags=dict(tags or {}), foreign=foreign, age=age, **ours))

    # --- what there is, and what there was -----------------------------------------------------------------------------------

    def instances(self, *states: str) -> list[Instance]:
        """All that exist, or all that are in these states (gone ones too), oldest first; as they are now."""
        return [Instance.from_json(doc) for doc in self.order("instances", states=list(states))]

    def instance(self, instance_id: str) -> Instance:
        """CloudError (unknown) where there never was one."""
        return Instance.from_json(self.order("instance", instance_id=instance_id))

    def log(self) -> list[Entry]:
        """Everything that happened, in order."""
        return [Entry(**doc) for doc in self.order("log")]

    def transcript(self) -> str:
        """The same as text. In the same process and with the same seed, the same test writes the same."""
        return "\n".join(str(entry) for entry in self.log())

    def calls(self) -> Counter[str]:
        """How many calls there were by name, refused ones too."""
        return Counter(self.order("calls"))

    def ledger(self) -> dict[str, int]:
        """How many instances were created, destroyed, vanished, exited, are left and foreign."""
        found: dict[str, int] = self.order("ledger")
        return found

    def leaks(self) -> list[Leak]:
        """What is there that is neither foreign nor protected."""
        return [Leak(Instance.from_json(doc["instance"]), tuple(doc["history"])) for doc in self.order("leaks")]

    def complaints(self) -> list[str]:
        """What a plugin or controller did to the cloud that it may never do, whatever goes wrong: in words.

        A foreign or protected instance that was touched; two instances of one attempt at once, where the cloud heeds tokens.
        """
        found: list[str] = self.order("complaints")
        return found

    def check(self) -> None:
        """AssertionError if something leaked or `complaints` has something to say; it tells what happened, and the seed."""
        wrong = [str(leak) for leak in self.leaks()] + self.complaints()
        if wrong:
            raise AssertionError("\n".join([*wrong, f"(seed {self.seed}: Cloud(seed={self.seed}) does the same again)"]))
