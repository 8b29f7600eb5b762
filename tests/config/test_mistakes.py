"""Every kind of mistake in master.cfg is told with the line that it is on and a remedy. Lines at fault end in ``#!``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latent.config.loader import load
from latent.errors import ConfigError
from tests.config.conftest import marked, mistakes

RIGHT = "c['workers'] = [Worker('w1', 'secret')]\n"

SETTINGS = {
    "misspelt key": ("c['wrokers'] = []  #!", "no setting", "did you mean 'workers'?"),
    "misspelt short key": ("c['bd'] = {}  #!", "no setting", "did you mean 'db'?"),
    "unknown key": ("c['zzz'] = 1  #!", "no setting", "the settings are: builders, db"),
    "key of Buildbot's": ("c['schedulers'] = []  #!", "no setting", "latent submit"),
    "key that is no string": ("c[5] = 1", "c[5] is no setting", "strings"),
    "title": ("c['title'] = 5  #!", "c['title'] is an int, 5, not a string", "write a string"),
    "empty title": ("c['title'] = ''  #!", "empty", ""),
    "journal_days": ("c['journal_days'] = 0  #!", "c['journal_days'] is 0", "number of days above 0"),
    "journal_days text": ("c['journal_days'] = '9'  #!", "c['journal_days'] is '9'", "write a number of days"),
    "limits no dict": ("c['limits'] = 5  #!", "c['limits'] is an int, 5, not a dict", "write c['limits'] = {'max_instances'"),
    "limits key": (
        "c['limits'] = {\n  'max_instance': 5,  #!\n}",
        "['max_instance'] is no setting",
        "did you mean 'max_instances'?",
    ),
    "limits key by itself": ("c['limits'] = {}\nc['limits']['max'] = 5  #!", "['max'] is no setting", "max_"),
    "limits key by update": ("c.update(limits={\n  'nonsense': 5})  #!", "['nonsense'] is no setting", "the settings of"),
    "max_instances": ("c['limits'] = {\n  'max_instances': 0}  #!", "c['limits']['max_instances'] is 0", "1 or more"),
    "max_instances bool": ("c['limits'] = {'max_instances': True}  #!", "is True", "write a whole number, 1 or more"),
    "max_starting": ("c['limits'] = {'max_starting': '3'}  #!", "['max_starting'] is '3'", "write a whole number, 1 or more"),
    "session_timeout": ("c['limits'] = {'session_timeout': -1}  #!", "['session_timeout'] is -1", "above 0"),
    "lease_seconds": ("c['limits'] = {'lease_seconds': float('inf')}  #!", "['lease_seconds'] is inf", "number of seconds"),
    "huge seconds": ("c['limits'] = {'lease_seconds': 10**400}  #!", "['lease_seconds'] is 1000", "that a float can hold"),
    "through a name": ("limits = {\n 'max_starting': 0,  #!\n}\nc['limits'] = limits", "is 0", "1 or more"),
    "protocols": ("c['protocols'] = {'pear': {}}  #!", "c['protocols']['pear'] is no setting", "did you mean 'peer'?"),
    "protocols no dict": ("c['protocols'] = 9989  #!", "not a dict", "write c['protocols'] = {'peer': ...}"),
    "peer no dict": ("c['protocols'] = {\n  'peer': 9989}  #!", "['peer'] is an int, 9989, not a dict", "write"),
    "peer port string": ("c['protocols'] = {'peer': {'port': '9989'}}  #!", "the string '9989', not a port", "without quotes"),
    "peer port range": ("c['protocols'] = {'peer': {\n 'port': 70000}}  #!", "is 70000, which is no port", "0 to 65535"),
    "peer token": ("c['protocols'] = {'peer': {\n 'token': 'secret'}}  #!", "has 6 characters", "that nobody guesses"),
    "peer token no string": ("c['protocols'] = {'peer': {\n 'token': 7}}  #!", "not a string", "at least 16 characters"),
    "peer version": ("c['protocols'] = {'peer': {\n 'version': 11}}  #!", "is 11", "from 12 to 16"),
    "interface": ("c['protocols'] = {'peer': {'interface': 'eth0'}}  #!", "'eth0', which is no IP address", "127.0.0.1"),
    "all networks": ("c['protocols'] = {\n 'peer': {'interface': '0.0.0.0'}}  #!", "can't be told where to come", "'advertise'"),
    "advertise": ("c['protocols'] = {'peer': {'advertise': 'host'}}  #!", "['advertise'] is 'host'", "HOST:PORT"),
    "advertise port": ("c['protocols'] = {'peer': {'advertise': 'host:http'}}  #!", "'http' is no port", "HOST:PORT"),
    "advertise without port": (
        "c['protocols'] = {'peer': {\n 'advertise': 'host:1'}}  #!",
        "listens on any free port",
        "add 'port'",
    ),
    "www without port": ("c['www'] = {}  #!", "c['www'] lacks 'port'", "write {'port': 8010}"),
    "www port": ("c['www'] = {'port': -1}  #!", "is -1, which is no port", "0 to 65535"),
    "www key": ("c['www'] = {'port': 1, 'prot': 2}  #!", "['prot'] is no setting", "did you mean 'port'?"),
    "same port": (
        "c['protocols'] = {'peer': {'port': 8010}}\nc['www'] = {'port': 8010}  #!",
        "both have port 8010",
        "give one of them another",
    ),
    "db url": ("c['db'] = {'url': 'state.sqlite'}  #!", "no database URL", "write 'sqlite:///"),
    "db kind": ("c['db'] = {'url': 'mysql://u:hush@h/d'}  #!", "of kind 'mysql'", "write 'sqlite:///"),
    "db in memory": ("c['db'] = {'url': 'sqlite://'}  #!", "in memory", "write 'sqlite:///"),
    "db without a name": ("c['db'] = {'url': 'postgresql://h'}  #!", "does not name a database", "write"),
    "db no text": ("c['db'] = {'url': None}  #!", "is None", "write a string"),
}

DECLARATIONS = {
    "no workers": ("c['workers'] = []  #!", "no workers are declared", "write c['workers'] = ["),
    "workers no list": ("c['workers'] = Worker('a', 'x')  #!", "not a list", "write c['workers'] = ["),
    "worker no worker": ("c['workers'] = [\n  Worker('a', 'x'),\n  'b',  #!\n]", "'b' in c['workers'] is a str", "write worker."),
    "worker a class": ("c['workers'] = [\n  Worker,  #!\n]", "Worker in c['workers'] is a class", "call it"),
    "worker a builder": ("c['workers'] = [Builder('b', ['true'])]  #!", "is a Builder, not a worker", "write"),
    "worker appended": ("c['workers'] = [Worker('a', 'x')]\nc['workers'].append(5)  #!", "5 in c['workers']", "write"),
    "worker added": ("c['workers'] = []\nc['workers'] += [\n  None,  #!\n]", "None in c['workers'] is None", "write"),
    "worker in a loop": (
        "c['workers'] = []  #!\nfor n in range(2):\n  c['workers'].append(n)\nc['workers'].pop()",
        "0 in c['workers'] is an int",
        "",
    ),
    "duplicate worker": (
        "c['workers'] = [\n  Worker('a', 'x'),\n  Worker('b', 'x'),\n  Worker('a', 'y'),  #!\n]",
        "two workers called 'a', the other one on line 3",
        "rename",
    ),
    "worker keyword": ("c['workers'] = [\n  Worker('a', 'x', max_bilds=2),  #!\n]", "max_bilds", "did you mean 'max_builds'?"),
    "worker without a name": ("c['workers'] = [\n  Worker(),  #!\n]", "name", ""),
    "worker of a loop": (
        "c['workers'] = [\n  Worker(name, 'x')  #!\n  for name in ('a', 5)\n]",
        "name",
        "",
    ),
    "worker of a function": (
        "def make(name):\n    return Worker(name, 'x', labels=5)  #!\nc['workers'] = [make('a')]",
        "labels",
        "",
    ),
    "builders no list": (RIGHT + "c['builders'] = {'b': 1}  #!", "c['builders'] is a dict", "write c['builders'] = ["),
    "builder no builder": (
        RIGHT + "c['builders'] = [\n  {'name': 'b'},  #!\n]",
        "is a dict, not a builder",
        "write util.Builder",
    ),
    "builder a class": (RIGHT + "c['builders'] = [Builder]  #!", "Builder in c['builders'] is a class", "call it"),
    "builder keyword": (
        RIGHT + "c['builders'] = [\n  Builder('a', ['true']),\n  Builder('b', ['true'], lables={}),  #!\n]",
        "Builder takes no keyword 'lables'",
        "did you mean 'labels'?",
    ),
    "builder without steps": (RIGHT + "c['builders'] = [Builder('a')]  #!", "Builder lacks 'steps'", "add"),
    "builder labels": (
        RIGHT + "c['builders'] = [Builder('a', ['true'], labels={'cpus': 4})]  #!",
        "the value of label 'cpus' is an int, 4",
        "quotes",
    ),
    "builder property": (
        RIGHT + "c['builders'] = [Builder('a', ['true'], properties={'at': {1}})]  #!",
        "property 'at' is a set",
        "stored as JSON",
    ),
    "builder name": (RIGHT + "c['builders'] = [Builder('-p', ['true'])]  #!", "starts with a dash", "choose another"),
    "builder called command": (RIGHT + "c['builders'] = [Builder('command', ['true'])]  #!", "'command'", "choose another"),
    "step": (
        RIGHT + "c['builders'] = [\n  Builder('a', [\n    Step('x', timeout='5'),  #!\n  ]),\n]",
        "step 'x': timeout is '5'",
        "number of seconds",
    ),
    "step bare": (
        RIGHT + "c['builders'] = [\n  Builder('a', [5]),  #!\n]",
        "builder 'a': step 5: the command is an int",
        "write",
    ),
    "step keyword": (RIGHT + "Step('x', max_tim=5)  #!", "Step takes no keyword 'max_tim'", "did you mean 'max_time'?"),
    "duplicate builder": (
        RIGHT + "b = [Builder('a', ['true'])]\nb.append(Builder('a', ['true']))  #!\nc['builders'] = b",
        "two builders called 'a', the other one on line 3",
        "rename",
    ),
    "builder for an unknown worker": (
        RIGHT + "c['builders'] = [\n  Builder('a', ['true'], workernames=['w2', 'w1']),  #!\n]",
        "workernames has 'w2', which is no declared worker",
        "did you mean 'w1'?",
    ),
    "builder without a server": (
        "c['workers'] = [Cloud('w1', 'x', labels={'os': 'linux'})]\n"
        "c['builders'] = [Builder('a', ['true'], labels={'os': 'windows'})]  #!",
        "no declared worker can serve it (w1: label os=windows is not offered (offered: linux))",
        "correct its labels",
    ),
}

PYTHON = {
    "unknown name": ("c['title'] = titel  #!", "the name 'titel' is not defined", "assign it above"),
    "near name": ("title = 'x'\nc['title'] = titel  #!", "the name 'titel' is not defined", "did you mean 'title'?"),
    "attribute": ("import os\nos.pth  #!", "AttributeError", "did you mean 'path'?"),
    "import": ("import no_such_module_here  #!", "no_such_module_here", "install"),
    "missing file": ("open(basedir + '/password').read()  #!", "No such file or directory", "check the path"),
    "exception": ("1 / 0  #!", "ZeroDivisionError: division by zero", "correct it"),
    "exception in a function": ("def f():\n    return 1 / 0  #!\nf()", "ZeroDivisionError", "correct it"),
    "exit": ("import sys\nsys.exit(3)  #!", "ends the program", "take that out"),
    "config error of its own": (
        "from latent.errors import ConfigError\nraise ConfigError('no licence; buy one')  #!",
        "no licence",
        "buy one",
    ),
    "c no dict": ("c = ['workers']  #!", "`c` is a list", "write `c = {}`"),
    "two dicts": ("c = {}\nBuildmasterConfig = {}  #!", "are two things", "write `c = BuildmasterConfig = {}`"),
    "broken message": (
        "class Mean(Exception):\n    def __str__(self): raise self\nraise Mean()  #!",
        "its message raises Mean",
        "correct it",
    ),
}


def _told(path: Path, what: str, remedy: str) -> None:
    (found,) = mistakes(path)
    assert what in found[1] + "; " + found[2]
    assert remedy in found[2]
    assert [found[0]] == (marked(path) or [1])


@pytest.mark.parametrize(("text", "what", "remedy"), SETTINGS.values(), ids=SETTINGS)
def test_settings(master_cfg: Callable[[str], Path], text: str, what: str, remedy: str) -> None:
    """A wrong setting is told with its line, what is wrong, and what to write."""
    _told(master_cfg(RIGHT + text), what, remedy)


@pytest.mark.parametrize(("text", "what", "remedy"), DECLARATIONS.values(), ids=DECLARATIONS)
def test_declarations(master_cfg: Callable[[str], Path], text: str, what: str, remedy: str) -> None:
    """A wrong worker or builder is told with the line of its element in the list, or of its constructor's call."""
    _told(master_cfg(text), what, remedy)


@pytest.mark.parametrize(("text", "what", "remedy"), PYTHON.values(), ids=PYTHON)
def test_python(master_cfg: Callable[[str], Path], text: str, what: str, remedy: str) -> None:
    """What the file raises is told with the line that raised it, and is the only thing that is told."""
    _told(master_cfg(RIGHT + text), what, remedy)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("c = {\n", 1),
        ("c = {}\nc['x'] = )\n", 2),
        ("def f():\nreturn 1\n", 2),
        ("c = {}\nreturn c\n", 2),
        ("x = 'äö'\n\ty = 1\n", 2),
    ],
)
def test_syntax_errors(tmp_path: Path, text: str, line: int) -> None:
    """A file that is no Python is refused with the line that Python names."""
    path = tmp_path / "master.cfg"
    path.write_text(text)
    (found,) = mistakes(path)
    assert found[0] == line
    assert "correct the syntax" in found[2]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"c = {}\n\x00", b"x = " + b"(" * 5000, b"x = 1" + b"+1" * 20000])
def test_files_that_python_cannot_read(tmp_path: Path, content: bytes) -> None:
    """Bytes that are no text, and text that is too deep for the compiler, are refused like all else."""
    path = tmp_path / "master.cfg"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"master\.cfg.*; "):
        load(path)


def test_missing_file(tmp_path: Path) -> None:
    """Where there is no file, the message says where it was looked for."""
    with pytest.raises(ConfigError, match=r"master\.cfg: there is no such file in .*; write one"):
        load(tmp_path / "master.cfg")


def test_directory(tmp_path: Path) -> None:
    """A directory is no configuration; the file in it is named."""
    with pytest.raises(ConfigError, match=r"is a directory; name the file in it, .*master\.cfg"):
        load(tmp_path)


def test_the_password_of_the_database_is_not_told(master_cfg: Callable[[str], Path]) -> None:
    """What is wrong with a database's URL is told without showing its password."""
    for url in ("mysql://u:hush@h/d", "nonsense:hush", "postgresql://u:hush@h"):
        (found,) = mistakes(master_cfg(RIGHT + f"c['db'] = {{'url': {url!r}}}"))
        assert "hush" not in str(found)


def test_all_at_once(master_cfg: Callable[[str], Path]) -> None:
    """One load tells every mistake, in the order of the file: the user mends them all before trying again."""
    path = master_cfg("""
        import nothing_of_that_name  #!
        c["titel"] = "builds"  #!
        c["workers"] = [
            Worker("a", "x", max_bilds=1),  #!
            Worker("b", "x"),
            undefined_worker,  #!
            Worker("b", "x"),  #!
            7,  #!
        ]
        for number in range(2):
            c["workers"].append(Worker(f"n{number}", "x", labels=number))  #!!
        nothing_of_that_name.function()
        c["builders"] = [
            Builder("a", []),  #!
            Builder("b", [Step("")]),  #!
            Builder("c", ["true"], priority="x", timeout=0),  #!!
            Builder("d", [Step("x", env=5), "true"], labels=3),  #!!
        ]
        c["limits"] = {
            "max_instances": 0,  #!
            "max_startign": 1,  #!
        }
        c["db"] = {"url": 1 / 0}  #!
        c["www"] = {"port": "80"}  #!
    """)
    found = mistakes(path)
    told = {line for line, _, _ in found}
    assert told == set(marked(path))
    assert [line for line, _, _ in found] == sorted(line for line, _, _ in found)


def test_consequences_are_not_told(master_cfg: Callable[[str], Path]) -> None:
    """What only fails because something before it failed is not another mistake."""
    path = master_cfg("""
        import nothing_of_that_name as settings  #!
        address = settings.HOST + ":9989"
        w = Worker("a", "x", labels=settings.LABELS)
        c["protocols"] = {"peer": {"advertise": address}}
        c["workers"] = [w]
        c["builders"] = [Builder("b", ["true"], workernames=[w.name])]
        int(address)
    """)
    found = mistakes(path)
    assert [line for line, _, _ in found] == marked(path)


def test_a_wrong_worker_does_not_make_its_builder_wrong(master_cfg: Callable[[str], Path]) -> None:
    """A builder whose only worker could not be made is not said to have no worker."""
    path = master_cfg("""
        c["workers"] = [Worker("a", "x"), Worker("b", "x", max_bilds=1)]  #!
        c["builders"] = [Builder("b", ["true"], workernames=["b"])]
    """)
    assert [line for line, _, _ in mistakes(path)] == marked(path)


def test_no_mistake_hides_that_nobody_serves_a_builder(master_cfg: Callable[[str], Path]) -> None:
    """Workers that are all right are held against the builders whatever else is wrong."""
    path = master_cfg("""
        c["workers"] = [Worker("a", "x")]
        c["builders"] = [
            Builder("b", ["true"], workernames=["q"]),  #!
            Builder("c", [Step("x", timeout="5")]),  #!
        ]
        c["title"] = 5  #!
        c["protocols"] = {"peer": {"interface": "0.0.0.0", "advertise": "host"}}  #!
    """)
    assert [line for line, _, _ in mistakes(path)] == marked(path)


def test_mistakes_in_a_module_beside_the_file(master_cfg: Callable[[str], Path]) -> None:
    """What fails in an imported module is told with the line of master.cfg and the place in the module."""
    path = master_cfg("import cloudy  #!\n")
    (path.parent / "cloudy.py").write_text("x = 1\ny = x / 0\n")
    (found,) = mistakes(path)
    assert (found[0], found[1]) == (2, "ZeroDivisionError: division by zero (in cloudy.py line 2)")
    (path.parent / "cloudy.py").write_text("x = (\n")
    (found,) = mistakes(path)
    assert "in cloudy.py line 1" in found[1]


def test_a_file_that_deals_with_its_errors(loaded: Callable[[str], object]) -> None:
    """A mistake inside ``try`` is the file's own business."""
    loaded("""
        try:
            w = Worker("a", "x", no_such_keyword=1)
        except Exception:
            w = Worker("a", "x")
        c["workers"] = [w]
    """)
