"""From the dict ``c`` to a `Config`: every setting is checked, every mistake noted with its line, none hides another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from latent.config import database, machines, protocols, values
from latent.config.builder import COMMAND, Builder
from latent.config.lines import Path
from latent.config.mistakes import Mistake, explain
from latent.config.serving import cannot_serve
from latent.config.settings import Bots, Buildbot, Config, Limits, PeerAgents, ReaperSettings, Www
from latent.config.source import Faulty, Source
from latent.errors import ConfigError
from latent.worker.base import AbstractWorker
from latent.worker.machine import Machine
from latent.worker.values import number
from latent.worker.words import did_you_mean, kind, shown

Check = Callable[[str, Any], Any]
"""``check(subject, value)`` answers the value as it is used, or raises `ConfigError`."""

FOREIGN = {
    "schedulers": "latent has no schedulers: builds are asked for with `latent submit` or over HTTP; take it out",
    "change_source": "latent watches no repositories: builds are asked for with `latent submit` or over HTTP; take it out",
    "services": "latent has no reporters: ask for results with `latent builds` or over HTTP; take it out",
    "buildbotURL": "latent serves its API where c['www'] says; take it out",
    "titleURL": "latent shows c['title'] without a link; take it out",
    "buildbotNetUsageData": "latent reports to nobody; take it out",
    "slaves": "they are called c['workers']",
    "multiMaster": "one controller owns a state directory; take it out",
}
"""Keys of Buildbot's that someone brings along, and what to do about them here."""


def or_none(check: Check) -> Check:
    return lambda subject, value: None if value is None else check(subject, value)


def at_least_one(subject: str, value: Any) -> int:
    return number(subject, value)


SECTIONS: Mapping[Path, Mapping[str, Check]] = {
    **protocols.sections(),
    ("www",): {"port": values.port, "interface": values.interface},
    ("limits",): {
        "max_instances": or_none(at_least_one),
        "max_starting": or_none(at_least_one),
        "session_timeout": values.seconds,
        "lease_seconds": values.seconds,
    },
    ("reaper",): {
        "interval": or_none(values.seconds),
        "min_age": values.seconds_or_0,
        "grace": values.seconds_or_0,
        "dry_run": values.boolean,
    },
    ("db",): {"url": values.text},
}
"""The settings that are dicts, and how each of their keys is checked."""

KEYS = ("workers", "builders", "machines", "protocols", "db", "www", "limits", "reaper", "title", "journal_days")


def check(source: Source) -> Config:
    """The configuration that ``source`` says.

    Raises `ConfigError` without messages of its own when anything is wrong; the mistakes are in ``source.mistakes``.
    """
    return _Checker(source).config()


class _Checker:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._c: Mapping[Any, Any] = {}

    def config(self) -> Config:
        mistakes = self._source.mistakes
        so_far = len(mistakes)
        self._c = self._root()
        workers = self._workers()
        workers_known = self._source.workers_known and len(mistakes) == so_far
        before = len(mistakes)
        declared = self._machines()
        if workers_known and self._source.machines_known and len(mistakes) == before:
            self._on_machines(workers, declared)
        self._missing(declared)
        builders = self._builders()
        if workers_known:
            self._all_served(workers, builders)
        self._keys()
        so_far = len(mistakes)
        peer = PeerAgents(**self._section("protocols", "peer"))
        buildbot = self._buildbot()
        bots = self._bots(workers)
        www = self._www()
        if len(mistakes) == so_far:
            for path, message in protocols.conflicts({"peer": peer, **({"bots": bots} if bots else {}), **buildbot}, www):
                self._note(path, message)
        db_url = self._database()
        limits = Limits(**self._section("limits"))
        reaper = ReaperSettings(**self._section("reaper"))
        for protocol, settings in buildbot.items():
            if slow := protocols.too_slow(protocol, settings, limits.session_timeout, limits.lease_seconds):
                self._note(("protocols", protocol, "keepalive_interval"), slow)
        title = self._plain("title", values.text, "latent")
        journal_days = self._plain("journal_days", or_none(_days), 30.0)
        if mistakes:
            raise ConfigError([])
        return Config(
            path=self._source.path,
            workers=workers,
            builders=builders,
            machines=declared,
            peer=peer,
            buildbot=buildbot,
            bots=bots,
            www=www,
            db_url=db_url,
            limits=limits,
            reaper=reaper,
            title=title,
            journal_days=journal_days,
        )

    def _note(self, path: Path, message: str) -> None:
        self._source.mistakes.append(Mistake(self._source.where.of(path), message))

    def _root(self) -> Mapping[Any, Any]:
        namespace = self._source.namespace
        c, other = namespace.get("c"), namespace.get("BuildmasterConfig")
        if other is not None and c is self._source.preset and not c:
            c = other
        if isinstance(c, Faulty):
            return {}
        if other is not None and c is not other and not isinstance(other, Faulty):
            self._note((), "`c` and `BuildmasterConfig` are two things; write `c = BuildmasterConfig = {}`, or only `c`")
        if not isinstance(c, dict):
            self._note((), f"`c` is {kind(c)}, {shown(c)}, not a dict; write `c = {{}}` and fill it")
            return {}
        return c

    def _keys(self) -> None:
        for key in self._c:
            if not isinstance(key, str):
                self._note((), f"c[{shown(key)}] is no setting; the keys of c are strings")
            elif key in FOREIGN:
                self._note((key,), f"c[{key!r}] is no setting; {FOREIGN[key]}")
            elif key not in KEYS:
                self._note((key,), f"c[{shown(key)}] is no setting; {did_you_mean(key, KEYS, 'the settings')}")

    def _plain(self, key: str, checked: Check, default: Any) -> Any:
        if key not in self._c or isinstance(self._c[key], Faulty):
            return default
        return self._value((key,), self._c[key], checked, default)

    def _value(self, path: Path, value: Any, checked: Check, default: Any) -> Any:
        subject = "c" + "".join(f"[{part!r}]" for part in path)
        try:
            return checked(subject, value)
        except ConfigError as error:
            for message in error.errors:
                self._note(path, message)
            return default

    def _section(self, *path: str) -> dict[str, Any]:
        """The keys of ``c[path]`` that are right."""
        content: Any = self._c
        for depth, part in enumerate(path):
            content = content.get(part)
            if content is None or isinstance(content, Faulty):
                return {}
            here = path[: depth + 1]
            known = [section[depth + 1] for section in SECTIONS if section[: depth + 1] == here and len(section) > depth + 1]
            known = known or list(SECTIONS[path])
            subject = "c" + "".join(f"[{step!r}]" for step in here)
            remedy = f"write {subject} = {{{known[0]!r}: ...}}"
            content = self._value(here, content, partial(values.mapping, remedy=remedy), {})
            for key in content:
                if key not in known:
                    near = did_you_mean(key, map(str, known), f"the settings of {subject}")
                    self._note((*here, key), f"{subject}[{shown(key)}] is no setting; {near}")
        checks = SECTIONS[path]
        right = object()
        found = {
            key: self._value((*path, key), value, checks[key], right)
            for key, value in content.items()
            if key in checks and not isinstance(value, Faulty)
        }
        return {key: value for key, value in found.items() if value is not right}

    def _buildbot(self) -> dict[str, Buildbot]:
        """The protocols of Buildbot's that the file names."""
        named = self._c.get("protocols")
        found: dict[str, Buildbot] = {}
        for protocol in protocols.BUILDBOT:
            if not isinstance(named, Mapping) or named.get(protocol) is None or isinstance(named[protocol], Faulty):
                continue
            before = len(self._source.mistakes)
            section = self._section("protocols", protocol)
            if len(self._source.mistakes) > before:
                continue
            try:
                found[protocol] = protocols.buildbot(protocol, section, self._source.path.parent)
            except ConfigError as error:
                for message in error.errors:
                    self._note(("protocols", protocol), message)
        return found

    def _bots(self, workers: Mapping[str, AbstractWorker]) -> Bots | None:
        named = self._c.get("protocols")
        so_far = len(self._source.mistakes)
        bots = None
        if isinstance(named, Mapping) and named.get(protocols.BOTS) is not None:
            section = self._section("protocols", protocols.BOTS)
            if section.get("tls") is not None:
                subject, directory = f"c['protocols'][{protocols.BOTS!r}]['tls']", self._source.path.parent
                try:
                    section["tls"] = protocols.tls(subject, section["tls"], directory=directory)
                except ConfigError as error:
                    for message in error.errors:
                        self._note(("protocols", protocols.BOTS, "tls"), message)
                    return None
            bots = Bots(**section)
        if len(self._source.mistakes) == so_far:
            for message in protocols.strangers(workers, bots):
                self._note(("workers",), message)
        return bots

    def _www(self) -> Www | None:
        section = self._section("www")
        if "port" in section:
            return Www(**section)
        content = self._c.get("www")
        if isinstance(content, Mapping) and "port" not in content:
            self._note(
                ("www",), "c['www'] lacks 'port'; write {'port': 8010}, or leave c['www'] out to have the local socket only"
            )
        return None

    def _database(self) -> str:
        url = self._section("db").get("url", database.DEFAULT)
        return str(self._value(("db", "url"), url, partial(database.checked_url, directory=self._source.path.parent), ""))

    def _elements(self, key: str, example: str) -> list[tuple[int, Any]]:
        """(line, element) of a list in ``c``, without those that are known to be faulty."""
        content = self._c.get(key)
        if content is None or isinstance(content, Faulty):
            return []
        if not isinstance(content, list | tuple):
            what = f"c[{key!r}] is {kind(content)}, {shown(content)}, not a list"
            self._note((key,), f"{what}; write c[{key!r}] = [{example}]")
            return []
        where = self._source.where
        lines = [
            where.of_element((key,), index, len(content)) or self._source.lines.get(id(element)) or where.of((key,))
            for index, element in enumerate(content)
        ]
        return [(line, element) for line, element in zip(lines, content, strict=True) if not isinstance(element, Faulty)]

    def _workers(self) -> dict[str, AbstractWorker]:
        example = "worker.ProcessLatentWorker('w1')"
        found: dict[str, tuple[int, AbstractWorker]] = {}
        for line, element in self._elements("workers", example):
            if not isinstance(element, AbstractWorker):
                self._stranger(line, element, "workers", AbstractWorker, example)
                continue
            try:
                members = element.expand()
            except Exception as error:
                self._source.mistakes += explain(error, self._source.path, line=line, made=type(element))
                continue
            for member in members:
                self._unique(found, member.name, line, member, "worker")
        self._worker_lines = {name: line for name, (line, _) in found.items()}
        return {name: worker for name, (_, worker) in found.items()}

    def _machines(self) -> dict[str, Machine]:
        example = "machine.GenericLatentMachine('m1', ...)"
        found: dict[str, tuple[int, Machine]] = {}
        for line, element in self._elements("machines", example):
            if not isinstance(element, Machine):
                self._stranger(line, element, "machines", Machine, example)
                continue
            self._unique(found, element.name, line, element, "machine")
        self._machine_lines = {name: line for name, (line, _) in found.items()}
        return {name: machine for name, (_, machine) in found.items()}

    def _missing(self, declared: Mapping[str, Machine]) -> None:
        """What machines name and is not there."""
        for name, element in declared.items():
            line = self._machine_lines[name]
            try:
                self._source.mistakes += [Mistake(line, what) for what in element.mistakes(self._source.path.parent)]
            except Exception as error:
                self._source.mistakes += explain(error, self._source.path, line=line, made=type(element))

    def _on_machines(self, workers: Mapping[str, AbstractWorker], declared: Mapping[str, Machine]) -> None:
        """Only if both are right by themselves."""
        for name, message in machines.misplaced(workers, declared):
            self._source.mistakes.append(Mistake(self._worker_lines[name], message))
        for name, message in machines.unused(workers, declared):
            self._source.mistakes.append(Mistake(self._machine_lines[name], message))

    def _builders(self) -> dict[str, Builder]:
        example = "util.Builder('tests', steps=['make test'])"
        found: dict[str, tuple[int, Builder]] = {}
        for line, element in self._elements("builders", example):
            if not isinstance(element, Builder):
                self._stranger(line, element, "builders", Builder, example)
            elif element.name == COMMAND:
                message = f"a builder can't be called {COMMAND!r}, that is what single commands run as; choose another name"
                self._source.mistakes.append(Mistake(line, message))
            else:
                self._unique(found, element.name, line, element, "builder")
        self._builder_lines = {name: line for name, (line, _) in found.items()}
        return {name: builder for name, (_, builder) in found.items()}

    def _stranger(self, line: int, element: Any, key: str, wanted: type, example: str) -> None:
        noun = key[:-1]
        if isinstance(element, type) and issubclass(element, wanted):
            message = f"{element.__name__} in c[{key!r}] is a class, not a {noun}; call it: {example}"
        else:
            message = f"{shown(element)} in c[{key!r}] is {kind(element)}, not a {noun}; write {example}"
        self._source.mistakes.append(Mistake(line, message))

    def _unique(self, found: dict[str, tuple[int, Any]], name: str, line: int, element: Any, noun: str) -> None:
        if name in found:
            message = f"there are two {noun}s called {name!r}, the other one on line {found[name][0]}; rename one of them"
            self._source.mistakes.append(Mistake(line, message))
        else:
            found[name] = (line, element)

    def _all_served(self, workers: Mapping[str, AbstractWorker], builders: Mapping[str, Builder]) -> None:
        """Only if each worker is right by itself: one that is not may be the one that is looked for."""
        if not workers:
            remedy = "write c['workers'] = [worker.ProcessLatentWorker('w1')]"
            self._note(("workers",), f"no workers are declared, so nothing can run; {remedy}")
            return
        for name, builder in builders.items():
            for message in cannot_serve(builder, workers):
                self._source.mistakes.append(Mistake(self._builder_lines[name], message))


def _days(subject: str, value: Any) -> float:
    try:
        return values.seconds(subject, value)
    except ConfigError as error:
        raise ConfigError([message.replace("of seconds", "of days") for message in error.errors]) from None
