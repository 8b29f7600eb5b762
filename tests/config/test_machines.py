"""``c["machines"]``: every mistake in it, and in what workers say of it, is told with its line and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latent.config.diff import diff
from latent.config.loader import load
from latent.worker.machine import AbstractLatentMachine
from tests.config.conftest import Load, marked, mistakes

HEAD = (
    "from latent.plugins import machine, worker\n"
    "up = machine.LocalWakeAction(['true'])\n"
    "def m(name, **more):\n"
    "    return machine.GenericLatentMachine(name, up, up, **more)\n"
)
ONE = HEAD + "c['machines'] = [m('box')]\n"

WRONG = {
    "unknown machine": (
        ONE + "c['workers'] = [Cloud('a', machine_name='box'),\n Cloud('b', machine_name='bxo'),  #!\n]",
        "worker 'b': machine_name is 'bxo', which is no machine of c['machines']",
        "did you mean 'box'?",
    ),
    "no machines at all": (
        HEAD + "c['workers'] = [Cloud('b', machine_name='box')]  #!",
        "machine_name is 'box', which is no machine",
        "write c['machines'] = [machine.GenericLatentMachine('box', ...)]",
    ),
    "a plain worker's, too": (
        HEAD + "c['workers'] = [Worker('b', 'x', machine_name='box')]  #!",
        "machine_name is 'box', which is no machine",
        "c['machines'] =",
    ),
    "unused machine": (
        HEAD + "c['machines'] = [\n  m('box'),\n  m('shed'),  #!\n]\nc['workers'] = [Cloud('a', machine_name='box')]",
        "machine 'shed' is used by no worker",
        "give one machine_name='shed', or take the machine out",
    ),
    "plain worker on a latent machine": (
        ONE + "c['workers'] = [Worker('a', 'x', machine_name='box')]  #!",
        "worker 'a' is a plain worker, and 'box' is started for latent workers only",
        "declare it as a latent worker, or the machine as one that is always up: machine.Machine(...)",
    ),
    "duplicate machine": (
        HEAD + "c['machines'] = [\n  m('box'),\n  m('box'),  #!\n]\nc['workers'] = [Cloud('a', machine_name='box')]",
        "two machines called 'box', the other one on line 7",
        "rename",
    ),
    "no such command": (
        HEAD
        + "c['machines'] = [\n machine.GenericLatentMachine('box', machine.LocalWakeAction(['no-such-program']), up),  #!\n]\n"
        + "c['workers'] = [Cloud('a', machine_name='box')]",
        "machine 'box': start_action: LocalWakeAction: command: there is no program 'no-such-program'",
        "install it, or write the path where it is",
    ),
    "missing key file": (
        HEAD
        + "down = machine.RemoteSshSuspendAction('h', sshBin='true', sshKey='keys/box')\n"
        + "c['machines'] = [machine.GenericLatentMachine('box', up, down)]  #!\n"
        + "c['workers'] = [Cloud('a', machine_name='box')]",
        "machine 'box': stop_action: RemoteSshSuspendAction: sshKey: there is no file '",
        "make one with ssh-keygen, or correct the path",
    ),
    "an action that is wrong": (
        HEAD
        + "wake = machine.LocalWOLAction('00:11')  #!\n"
        + "c['machines'] = [machine.GenericLatentMachine('box', wake, up)]\n"
        + "c['workers'] = [Cloud('a', machine_name='box')]",
        "wakeMac is '00:11', which is no hardware address",
        "write six pairs of hex digits",
    ),
    "an action's keyword": (
        HEAD
        + "wake = machine.HttpAction('http://h/', 'GET', parms={})  #!\n"
        + "c['machines'] = [machine.GenericLatentMachine('box', wake, up)]\n"
        + "c['workers'] = [Cloud('a', machine_name='box')]",
        "HttpAction takes no keyword 'parms'",
        "did you mean 'params'?",
    ),
    "a machine's keyword": (
        HEAD
        + "c['machines'] = [\n machine.GenericLatentMachine('box', up, up, build_wait_timout=5),  #!\n]\n"
        + "c['workers'] = [Cloud('a', machine_name='box')]",
        "no keyword 'build_wait_timout'",
        "did you mean 'build_wait_timeout'?",
    ),
    "machines no list": (
        HEAD + "c['machines'] = m('box')  #!\nc['workers'] = [Cloud('a')]",
        "not a list",
        "write c['machines'] = [",
    ),
    "a machine that is none": (
        HEAD + "c['machines'] = ['box']  #!\nc['workers'] = [Cloud('a')]",
        "'box' in c['machines'] is a str, not a machine",
        "write machine.GenericLatentMachine",
    ),
    "a worker among them": (
        HEAD + "c['machines'] = [Cloud('a')]  #!\nc['workers'] = [Cloud('a')]",
        "is a Cloud, not a machine",
        "write",
    ),
    "a plugin that is not there": (
        "from latent.plugins import machine\n"
        "c['machines'] = [machine.GenericLatntMachine('m')]  #!\nc['workers'] = [Cloud('a', machine_name='m')]",
        "latent.machine has no plugin 'GenericLatntMachine'",
        "did you mean 'GenericLatentMachine'?",
    ),
}


@pytest.mark.parametrize(("text", "what", "remedy"), [pytest.param(*case, id=name) for name, case in WRONG.items()])
def test_a_mistake_is_told(master_cfg: Callable[[str], Path], text: str, what: str, remedy: str) -> None:
    """With its line, once, and nothing else is."""
    path = master_cfg(text)
    ((line, said, advice),) = mistakes(path)
    assert [line] == marked(path)
    assert what in said
    assert remedy in advice


def test_one_mistake_hides_no_other(master_cfg: Callable[[str], Path]) -> None:
    """What is not there on this machine, what nobody uses and what is misspelt are told together."""
    path = master_cfg(
        HEAD
        + "c['machines'] = [\n"
        + "  machine.GenericLatentMachine('box', machine.LocalWakeAction(['no-such-program']), up),  #!!\n"
        + "]\nc['workers'] = [Cloud('a', machine_name='bxo')]  #!"
    )
    assert [line for line, _, _ in mistakes(path)] == marked(path)


def test_a_configuration_with_machines(loaded: Load) -> None:
    """Pools live on one machine; a machine that is always up is a name for plain workers, too."""
    config = loaded(
        HEAD
        + "c['machines'] = [m('box', build_wait_timeout=30), machine.Machine('shelf')]\n"
        + "c['workers'] = [Cloud('a-{n}', count=3, machine_name='box'), Worker('b', 'x', machine_name='shelf')]"
    )
    assert list(config.machines) == ["box", "shelf"]
    assert isinstance(config.machines["box"], AbstractLatentMachine)
    assert config.machines["box"].policy().build_wait_timeout == 30


def test_what_changed_is_found(master_cfg: Callable[[str], Path]) -> None:
    """By what is declared; reading the file again changes nothing."""
    text = HEAD + "c['machines'] = [m('box', build_wait_timeout=30)]\nc['workers'] = [Cloud('a', machine_name='box')]"
    old = load(master_cfg(text))
    assert diff(old, load(master_cfg(text))) == []
    changed = load(master_cfg(text.replace("30", "40")))
    assert [str(change) for change in diff(old, changed)] == ["machine box: changed"]
    other_action = load(master_cfg(text.replace("['true']", "['false']")))
    assert [str(change) for change in diff(old, other_action)] == ["machine box: changed"]
    renamed = load(master_cfg(text.replace("'box'", "'bin'")))
    assert [str(change) for change in diff(old, renamed)] == [
        "worker a: changed",
        "machine box: removed; it is stopped when no instance is on it",
        "machine bin: added",
    ]
