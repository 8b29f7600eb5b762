"""What is wrong, in words for an operator, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from latent.controller.dispatcher import Dispatcher
from latent.controller.failures import explained
from latent.controller.lifecycle import Lifecycle
from latent.controller.reaper import Reaper
from latent.controller.roster import Post, Roster
from latent.controller.scan import Found, Scan
from latent.core.leaks import Standing
from latent.store.database import Store
from latent.worker import results
from latent.worker.base import RECOVERY_HOOKS, scope_of

QUIET = 3
"""An agent is called silent when this share of its session's time (a third) has passed without a sign of life."""


@frozen(kw_only=True)
class HealthItem:
    """``subject``: "store", "worker NAME", "attempt NAME#N", "instance NAME#N (ID)", "controller", or a provider as its plugin
    calls it."""

    subject: str
    ok: bool
    message: str
    remedy: str = ""


def health(
    store: Store,
    roster: Roster,
    dispatcher: Dispatcher,
    reaper: Reaper,
    scan: Scan | None,
    *,
    problems: list[str],
    trouble: Mapping[str, str],
    now: float,
) -> list[HealthItem]:
    """One item for the store and for each worker at least; what is not well has a remedy.

    ``scan``: the last look at what the providers have. ``problems``: what the start found. ``trouble``: worker -> what its plugin
    does wrong.
    """
    items = [_store(store)]
    items += [
        HealthItem(subject="controller", ok=False, message=problem, remedy="see the log; it is shown until the next start")
        for problem in problems
    ]
    for post in roster:
        items += _worker(post, dispatcher, trouble.get(post.name, ""), now)
    items += _providers(roster)
    if scan is not None:
        items += _scanned(scan)
    for case in reaper.cases():
        tried = f"tried {case.tries} times, last: {case.error}" if case.tries else "about to be tried"
        items.append(
            HealthItem(
                subject=f"attempt {case.attempt}",
                ok=False,
                message=f"its instance may still be there: {case.reason} ({tried})",
                remedy="it is protected: it stays until that mark is taken off"
                if reaper.is_protected(case.attempt)
                else "it is destroyed again and again until its provider confirms that it is gone",
            )
        )
    return items


def _scanned(scan: Scan) -> Iterator[HealthItem]:
    for scope, error in scan.unlisted.items():
        yield HealthItem(
            subject=scope,
            ok=False,
            message=f"its instances could not be listed, so leaks would not be seen: {error}",
            remedy="mend the cause; the next scan tries again",
        )
    for found in scan.standing(Standing.LEAKED):
        yield HealthItem(
            subject=_titled(found),
            ok=False,
            message=f"it has leaked: {found.verdict.why}",
            remedy="latent leaks --reap destroys it",
        )
    for found in scan.standing(Standing.SUSPECT, Standing.PROTECTED):
        yield HealthItem(subject=_titled(found), ok=True, message=found.verdict.why)


def _titled(found: Found) -> str:
    title = f" ({found.instance.title})" if found.instance.title else ""
    return f"instance {found.instance.attempt}{title}"


def _store(store: Store) -> HealthItem:
    stalled = store.stalled
    if stalled:
        return HealthItem(
            subject="store", ok=False, message=stalled, remedy="writes are held back until it is mended; none is lost"
        )
    return HealthItem(subject="store", ok=True, message="writes reach the disk")


def _worker(post: Post, dispatcher: Dispatcher, trouble: str, now: float) -> Iterator[HealthItem]:
    subject = f"worker {post.name}"
    bad = False
    if trouble:
        bad = True
        yield HealthItem(subject=subject, ok=False, message=trouble, remedy="mend the plugin; until then it counts as a no")
    if post.quarantine.until > now:
        bad = True
        yield HealthItem(
            subject=subject,
            ok=False,
            message=f"backs off for {post.quarantine.until - now:.0f} s more: {post.quarantine.reason}",
            remedy="mend the cause; it is tried again by itself after the back-off",
        )
    if post.unusable:
        bad = True
        yield HealthItem(
            subject=subject,
            ok=False,
            message=f"it gets no builds: {post.unusable}",
            remedy="mend the cause, then run latent reconfig: it is set up again",
        )
    if isinstance(post, Lifecycle) and post.unhealthy:
        bad = True
        yield HealthItem(
            subject=subject,
            ok=False,
            message=f"check_instance says of attempt {post.state.attempt}: {post.unhealthy}",
            remedy="it gets no more builds and is stopped after its last",
        )
    if (absent := dispatcher.absent.get(post.name)) is not None:
        bad = True
        yield HealthItem(
            subject=subject,
            ok=False,
            message=absent,
            remedy="look whether an instance can reach the controller, and at its agent's log",
        )
    session = dispatcher.sessions.of_worker(post.name)
    if session is not None and now - session.last_seen > (patience := dispatcher.sessions.patience(session)) / QUIET:
        bad = True
        yield HealthItem(
            subject=subject,
            ok=False,
            message=f"its agent has been silent for {now - session.last_seen:.0f} s",
            remedy=f"after {patience:g} s it counts as lost and its builds are tried again",
        )
    if not isinstance(post, Lifecycle) and session is None:
        bad = True
        yield HealthItem(subject=subject, ok=False, message="its agent is not attached", remedy="start the agent on its machine")
    if not bad:
        missing = _unrecoverable(post)
        yield HealthItem(
            subject=subject,
            ok=True,
            message=post.state_name
            + (f"; its plugin can't find its instance again after a crash (no {missing})" if missing else ""),
        )


def _unrecoverable(post: Post) -> str:
    if not isinstance(post, Lifecycle):
        return ""
    return ", ".join(hook for hook in RECOVERY_HOOKS if not post.plugin.supports(hook))


def _providers(roster: Roster) -> Iterator[HealthItem]:
    """What the plugins know of their providers: one that many workers share is told of once."""
    asked = set()
    for post in roster.latent():
        if post.unusable or post.setting_up or not post.plugin.supports("provider_status"):
            continue
        try:
            scope = scope_of(post.plugin)
            if scope in asked:
                continue
            asked.add(scope)
            status = results.provider_status(post.plugin, post.plugin.provider_status())
        except Exception as error:
            yield HealthItem(
                subject=f"worker {post.name}",
                ok=False,
                message=f"its plugin can't say how its provider is: {explained(error)}",
                remedy="report it to whoever wrote the plugin",
            )
            continue
        if status is not None:
            yield HealthItem(subject=status.subject, ok=status.ok, message=status.message, remedy=status.remedy)
