"""User data is read as cloud-init reads it."""

from __future__ import annotations

import base64
import gzip
from importlib.util import find_spec

import pytest

from tests.requires import require

require(find_spec("moto") and find_spec("boto3"), "moto", "pip install 'latent[testing-ec2]'")

from latent.testing.ec2 import cloudinit  # noqa: E402


def test_nothing() -> None:
    assert cloudinit.read(b"") == cloudinit.Plan()


def test_commands_are_strings_or_lists() -> None:
    """A list is one command whatever is in it."""
    assert cloudinit.commands(["a | b", ["c d", "$e", 3]]) == b"#!/bin/sh\na | b\n'c d' '$e' 3\n"


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        ("b64", base64.b64encode(b"x")),
        ("gz+b64", base64.b64encode(gzip.compress(b"x"))),
        ("gzip+base64", base64.b64encode(gzip.compress(b"x"))),
    ],
)
def test_files_are_decoded(encoding: str, raw: bytes) -> None:
    config = (
        f"#cloud-config\nwrite_files:\n- {{path: /a, encoding: {encoding}, content: '{raw.decode()}', permissions: '0600'}}\n"
    )
    assert cloudinit.read(config.encode()).files == [cloudinit.File("/a", b"x", 0o600)]


def multipart(*configs: str) -> bytes:
    parts = "".join(f"--B\nContent-Type: text/cloud-config\n\n{config}\n" for config in configs)
    return f'Content-Type: multipart/mixed; boundary="B"\nMIME-Version: 1.0\n\n{parts}--B--\n'.encode()


def test_of_two_configs_the_later_counts() -> None:
    """Key by key: this is how somebody's runcmd is lost."""
    plan = cloudinit.read(multipart("#cloud-config\nruncmd: [one]\nbootcmd: [two]", "#cloud-config\nruncmd: [three]"))
    assert [program.content for program in plan.scripts] == [b"#!/bin/sh\nthree\n"]
    assert [program.content for program in plan.early] == [b"#!/bin/sh\ntwo\n"]


def test_two_configs_are_merged_on_request() -> None:
    merge = "merge_how: 'list(append)+dict(recurse_array)+str()'"
    plan = cloudinit.read(multipart("#cloud-config\nruncmd: [one]", f"#cloud-config\n{merge}\nruncmd: [three]"))
    assert [program.content for program in plan.scripts] == [b"#!/bin/sh\none\nthree\n"]


def test_an_archive() -> None:
    archive = '#cloud-config-archive\n- "#!/bin/sh\\necho a"\n- {type: text/cloud-config, content: "runcmd: [b]"}\n'
    plan = cloudinit.read(archive.encode())
    assert [program.name for program in plan.scripts] == ["part-001", "runcmd"]


@pytest.mark.parametrize(
    "data",
    [
        b"#include\nhttp://example.invalid",
        b"## template: jinja\n#cloud-config",
        b"#cloud-config\n- a list",
        b"#cloud-config\n{",
        b"#cloud-config\nwrite_files: [{content: no path}]",
        b"#cloud-config\nruncmd: 3",
        b"nonsense",
        b"\x1f\x8bnot gzip",
        b"\xff\xfe\x00",
    ],
)
def test_nonsense_is_told(data: bytes) -> None:
    """An instance with it boots all the same."""
    plan = cloudinit.read(data)
    assert plan.ignored
    assert plan.scripts == []
