"""Several daemons as one: which is to get the next container, and which are passed by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen
from twisted.logger import Logger

from latent.errors import LatentWorkerCapacityError, LatentWorkerFailedToSubstantiate
from latent_docker.daemon import Daemon
from latent_docker.faults import DaemonUnreachable

log = Logger()


@frozen
class Placed:
    """``answer`` of the daemon that took it. ``skipped``: why others did not, a line each."""

    daemon: Daemon
    answer: object
    skipped: tuple[str, ...]


def in_order(daemons: Iterable[Daemon]) -> list[Daemon]:
    """Those that answer before those that did not just now, the emptiest first; else as they are declared."""
    return sorted(daemons, key=lambda daemon: (not daemon.worth_trying(), len(daemon.taken)))


async def place(
    daemons: Iterable[Daemon], key: str, most: int | None, start: Callable[[Daemon], Awaitable[object]], first: Daemon | None
) -> Placed:
    """Start an instance on the first daemon that can be reached and has room; ``most`` instances may be on each.

    ``key``: the instance's, which takes its place on the daemon until `Daemon.taken` is relieved of it. ``first``: the daemon
    that has it already. Raises what the last daemon said; with several, what each said.
    """
    skipped: list[str] = []
    errors: list[LatentWorkerFailedToSubstantiate] = []
    order = [first] if first is not None else in_order(daemons)
    for daemon in order:
        if most is not None and len(daemon.taken - {key}) >= most:
            errors.append(LatentWorkerCapacityError(f"{daemon.host} has {most} containers, as many as max_containers lets it"))
            skipped.append(str(errors[-1]))
            continue
        daemon.taken.add(key)
        try:
            answer = await start(daemon)
        except (DaemonUnreachable, LatentWorkerCapacityError) as error:
            daemon.taken.discard(key)
            errors.append(error)
            skipped.append(str(error))
        except BaseException:
            daemon.taken.discard(key)
            raise
        else:
            skipped += [other.down for other in order[order.index(daemon) + 1 :] if other.down]
            for line in skipped:
                log.warn("{key} goes to {host}: {why}", key=key, host=daemon.host, why=line)
            return Placed(daemon, answer, tuple(skipped))
    if len(errors) == 1:
        raise errors[0]
    kind = LatentWorkerCapacityError if any(isinstance(e, LatentWorkerCapacityError) for e in errors) else type(errors[-1])
    message = "none of the daemons took it: " + " | ".join(skipped)
    raise kind(message) if kind is LatentWorkerCapacityError else LatentWorkerFailedToSubstantiate(message)
