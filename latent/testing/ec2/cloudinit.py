"""User data as cloud-init reads it: what it is made of, and what is run when. Nothing is run here.

Known: scripts (``#!``), ``#cloud-boothook``, ``#cloud-config`` with bootcmd, write_files, runcmd and
``cloud_final_modules: [[scripts-user, always]]``, ``#cloud-config-archive``, MIME multipart of these and of
``text/x-shellscript-per-boot``, ``-per-instance``, ``-per-once``; each of them compressed with gzip or not.
What else there is stands in `Plan.ignored`.

As with cloud-init, scripts run once in the life of an instance, in the order of their names, what is called runcmd among them;
bootcmd and boothooks run at every boot, before; and of two cloud-configs with the same key the later one counts, unless it says
``merge_how``.
"""

from __future__ import annotations

import base64
import gzip
import shlex
from collections.abc import Iterator, Mapping, Sequence
from email import message_from_bytes
from email.message import Message
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from attrs import Factory, define, frozen

SHELL = b"#!/bin/sh\n"

_BY_FIRST_LINE = {
    b"#!": "text/x-shellscript",
    b"#cloud-boothook": "text/cloud-boothook",
    b"#cloud-config-archive": "text/cloud-config-archive",
    b"#cloud-config": "text/cloud-config",
    b"#include": "text/x-include-url",
    b"#part-handler": "text/part-handler",
    b"#upstart-job": "text/upstart-job",
    b"## template: jinja": "text/jinja2",
}
_SILENT = {"merge_how", "merge_type", "cloud_final_modules", "bootcmd", "write_files", "runcmd"}


@frozen
class File:
    path: str
    content: bytes
    mode: int = 0o644
    append: bool = False


@frozen
class Program:
    """A script: ``name`` for messages and for its place in the order."""

    name: str
    content: bytes


@define
class Plan:
    """``early``: at every boot, before the rest. ``files``: written at the first. ``scripts``: at the first, in order;
    at every boot if ``always``. ``per_boot``: at every one. ``ignored``: what was not understood."""

    early: list[Program] = Factory(list)
    files: list[File] = Factory(list)
    scripts: list[Program] = Factory(list)
    per_boot: list[Program] = Factory(list)
    always: bool = False
    ignored: list[str] = Factory(list)


def read(user_data: bytes) -> Plan:
    """Never raises: an instance with user data that is nonsense starts as well, and says so on its console."""
    plan = Plan()
    config: dict[str, Any] = {}
    for number, (kind, name, content) in enumerate(_parts(user_data), 1):
        title = name or f"part-{number:03d}"
        match kind:
            case "text/x-shellscript" | "text/x-shellscript-per-instance" | "text/x-shellscript-per-once":
                plan.scripts.append(Program(title, content))
            case "text/x-shellscript-per-boot":
                plan.per_boot.append(Program(title, content))
            case "text/cloud-boothook":
                plan.early.append(
                    Program(title, content.partition(b"\n")[2] if content.startswith(b"#cloud-boothook") else content)
                )
            case "text/cloud-config":
                _take_in(plan, config, title, content)
            case _:
                plan.ignored.append(f"{title} ({kind})")
    try:
        _configure(plan, config)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        plan.ignored.append(f"the cloud-config: {error!r}")
    plan.scripts.sort(key=lambda program: program.name)
    plan.per_boot.sort(key=lambda program: program.name)
    return plan


def _parts(data: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Kind, name and content of all that is in it, however deep."""
    data = _unpacked(data)
    start = data.lstrip()
    kind = _kind_of(start)
    if kind == "text/cloud-config-archive":
        yield from _archived(start)
    elif kind:
        yield kind, "", start
    elif start[:2000].lower().startswith((b"content-type:", b"mime-version:")):
        yield from _mime(message_from_bytes(start))
    elif start:
        yield "text/x-not-multipart", "", start


def _mime(message: Message) -> Iterator[tuple[str, str, bytes]]:
    for part in message.walk():
        if part.is_multipart():
            continue
        payload = part.get_payload(decode=True)
        content = _unpacked(payload if isinstance(payload, bytes) else b"")
        kind = part.get_content_type()
        if kind in ("text/plain", "text/x-not-multipart", "application/octet-stream", "application/gzip", "application/x-gzip"):
            kind = _kind_of(content.lstrip()) or kind
            content = content.lstrip()
        yield kind, part.get_filename() or "", content


def _archived(data: bytes) -> Iterator[tuple[str, str, bytes]]:
    try:
        entries = yaml.safe_load(data)
    except yaml.YAMLError as error:
        yield f"text/cloud-config-archive: {error}", "", data
        return
    for entry in entries if isinstance(entries, list) else []:
        whole = {"content": entry} if isinstance(entry, str) else entry
        content = str(whole.get("content", "")).encode()
        yield whole.get("type") or _kind_of(content) or "text/plain", whole.get("filename", ""), content


def _kind_of(content: bytes) -> str:
    return next((kind for start, kind in _BY_FIRST_LINE.items() if content.startswith(start)), "")


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError):
        return data


def _take_in(plan: Plan, config: dict[str, Any], title: str, content: bytes) -> None:
    try:
        found = yaml.safe_load(content) or {}
    except yaml.YAMLError as error:
        plan.ignored.append(f"{title}: {error}")
        return
    if not isinstance(found, dict):
        plan.ignored.append(f"{title}: not a mapping")
        return
    appends = "append" in str(found.get("merge_how", found.get("merge_type", "")))
    for key, value in found.items():
        if appends and isinstance(value, list) and isinstance(config.get(key), list):
            config[key] = [*config[key], *value]
        else:
            config[key] = value


def _configure(plan: Plan, config: Mapping[str, Any]) -> None:
    plan.ignored += [f"{key} in the cloud-config" for key in config if key not in _SILENT]
    if config.get("bootcmd"):
        plan.early.append(Program("bootcmd", commands(config["bootcmd"])))
    if config.get("runcmd"):
        plan.scripts.append(Program("runcmd", commands(config["runcmd"])))
    plan.files += [_file(entry) for entry in config.get("write_files") or []]
    plan.always = any(
        isinstance(module, list) and module[:2] == ["scripts-user", "always"]
        for module in config.get("cloud_final_modules") or []
    )


def commands(items: Sequence[object]) -> bytes:
    """A script of a list of commands: a string is a line of it, a list is a command with its arguments."""
    lines = [shlex.join(map(str, item)) if isinstance(item, list) else str(item) for item in items]
    return SHELL + "".join(f"{line}\n" for line in lines).encode()


def _file(entry: Mapping[str, Any]) -> File:
    content = entry.get("content", "")
    raw = content if isinstance(content, bytes) else str(content).encode()
    encoding = str(entry.get("encoding", "")).lower()
    if "b64" in encoding or "base64" in encoding:
        raw = base64.b64decode(raw)
    if encoding.startswith(("gz", "gzip")):
        raw = gzip.decompress(raw)
    permissions = entry.get("permissions", "0644")
    mode = permissions if isinstance(permissions, int) else int(str(permissions), 8)
    return File(str(entry["path"]), raw, mode, bool(entry.get("append")))
