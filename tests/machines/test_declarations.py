"""What is wrong with a declaration of a machine, and what is missing for it here, told before anything is started."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from latent.errors import ConfigError
from latent.plugins import machine as machines
from tests.machines.kit import MAC


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: machines.LocalWakeAction("virsh start m"), "command is a str, 'virsh start m'; write a list"),
        (lambda: machines.LocalWakeAction([]), "command is a list, []; write a list"),
        (lambda: machines.LocalWakeAction(["a", 5]), "command has an int, 5, in it"),
        (lambda: machines.LocalWOLAction("00:11"), "wakeMac is '00:11', which is no hardware address; write six pairs"),
        (lambda: machines.RemoteSshWOLAction("h", "00:11"), "RemoteSshWOLAction: wakeMac is '00:11', which is no hardware"),
        (lambda: machines.LocalWOLAction(MAC, address="example"), "address is 'example', which is no IPv4 address"),
        (lambda: machines.LocalWOLAction(MAC, port=0), "port is 0, which is no port"),
        (lambda: machines.RemoteSshWakeAction("-oProxyCommand=x", ["a"]), "host is '-oProxyCommand=x'; write 'HOST'"),
        (lambda: machines.RemoteSshWakeAction("h", " "), "remoteCommand is empty"),
        (lambda: machines.RemoteSshWakeAction("", ["a"]), "host is ''"),
        (lambda: machines.HttpAction("ftp://h", "GET"), "url is 'ftp://h'; write 'http://HOST/PATH'"),
        (lambda: machines.HttpAction("http://h", "PSOT"), "method is 'PSOT'; did you mean 'POST'?"),
        (lambda: machines.HttpAction("http://h", "GET", timeout=0), "timeout is 0; write a number of seconds"),
        (lambda: machines.HttpAction("http://h", "GET", json={}, data=b""), "json goes with neither data nor files"),
        (lambda: machines.HttpAction("http://h", "GET", proxies={}), "proxies is not supported"),
        (lambda: machines.GenericLatentMachine("m"), "start_action is None, None, not an action"),
        (lambda: machines.GenericLatentMachine("m", "virsh", "x"), "start_action is a str, 'virsh', not an action"),
        (
            lambda: machines.GenericLatentMachine("m", machines.LocalWakeAction, machines.LocalWakeAction(["true"])),
            "start_action is the class LocalWakeAction, not an action",
        ),
        (lambda: machines.GenericLatentMachine("m 1", None, None), "the name of a machine is 'm 1'"),
        (lambda: ok(wait_for="host"), "wait_for is 'host'; write 'HOST:PORT'"),
        (lambda: ok(build_wait_timout=5), "has no keyword 'build_wait_timout'; did you mean 'build_wait_timeout'?"),
        (lambda: ok(missing_timeout=0), "missing_timeout is 0; write a number of seconds above 0"),
    ],
)
def test_a_wrong_declaration_is_told(make: Any, message: str) -> None:
    """What is wrong, and what to write."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)
    assert "; " in str(caught.value)


def ok(**kwargs: Any) -> Any:
    return machines.GenericLatentMachine("m", machines.LocalWakeAction(["true"]), machines.LocalWakeAction(["true"]), **kwargs)


def test_what_is_missing_on_this_machine_is_told(tmp_path: Path) -> None:
    """Programs and files, before anything is started; paths begin at the directory of master.cfg."""
    (tmp_path / "up.sh").write_text("#!/bin/sh\n")
    (tmp_path / "key").write_text("a key")
    (tmp_path / "key").chmod(0o644)
    machine = machines.GenericLatentMachine(
        "m1",
        machines.LocalWakeAction(["no-such-program"]),
        machines.RemoteSshSuspendAction("h", sshBin="true", sshKey="no-key", sshHostKey="no-hosts"),
    )
    first, second, third = machine.mistakes(tmp_path)
    assert first.startswith(
        "machine 'm1': start_action: LocalWakeAction: command: there is no program 'no-such-program'; install"
    )
    assert second.startswith(f"machine 'm1': stop_action: RemoteSshSuspendAction: sshKey: there is no file '{tmp_path}/no-key'; ")
    assert third.startswith(
        f"machine 'm1': stop_action: RemoteSshSuspendAction: sshHostKey: there is no file '{tmp_path}/no-hosts'"
    )
    relative = machines.GenericLatentMachine(
        "m1", machines.LocalWakeAction(["./up.sh"]), machines.RemoteSshSuspendAction("h", sshBin="true", sshKey="key")
    )
    first, second = relative.mistakes(tmp_path)
    assert "there is no program './up.sh'; correct the path, or make it executable" in first
    assert "can be read by others, and ssh refuses such a key; chmod 600 it" in second
    (tmp_path / "up.sh").chmod(0o755)
    (tmp_path / "key").chmod(stat.S_IRUSR)
    assert list(relative.mistakes(tmp_path)) == []
