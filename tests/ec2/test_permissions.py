"""The IAM policy allows what the plugin calls, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import botocore.session
from botocore import xform_name

import latent_ec2
from latent_ec2.permissions import TABLE, Only, action_of, policy

ROOT = Path(__file__).parents[2]


def operations() -> dict[str, str]:
    """Every operation of boto3's EC2 client -> the API's name of it."""
    model = botocore.session.get_session().get_service_model("ec2")
    return {xform_name(name): name for name in model.operation_names}


def called() -> set[str]:
    """Every operation whose name is written anywhere in the plugin."""
    known, found = operations(), set()
    for path in Path(latent_ec2.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in known:
                found.add(str(node.value))
    return found


def test_calls() -> None:
    """Every operation that the plugin calls is in the table, and what is in the table is called."""
    found = called()
    assert {"run_instances", "terminate_instances", "describe_instances"} < found
    assert {action_of(name) for name in found} == {one.action for one in TABLE if one.action.startswith("ec2:")}


def test_names() -> None:
    """An operation's action has the API's name of it."""
    known = operations()
    for name in called():
        assert action_of(name) == f"ec2:{known[name]}"


def test_ours() -> None:
    """Nothing that ends, changes or tags an instance is allowed for one that is not ours."""
    for one in TABLE:
        if one.action.split(":")[1].startswith(("Describe", "Run", "Allocate", "PassRole", "GetParameters")):
            continue
        assert one.only is not None or "instance" not in one.on or one.action == "ec2:DisassociateAddress", one
        assert one.on or one.only is Only.WHEN_MADE, one


def test_policy() -> None:
    """The document has each action of the table, with resources and conditions, and no wildcard among the actions."""
    document = policy()
    actions = [action for statement in document["Statement"] for action in statement["Action"]]
    assert set(actions) == {one.action for one in TABLE}
    assert not any("*" in action for action in actions)
    for statement in document["Statement"]:
        if statement["Resource"] == "*":
            assert "Condition" in statement or all(action.startswith("ec2:Describe") for action in statement["Action"])
        if "ec2:TerminateInstances" in statement["Action"]:
            assert statement["Condition"] == {"StringLike": {"aws:ResourceTag/latent:controller": "?*"}}


def test_drift() -> None:
    """The page has the policy that the table makes; `make check` finds it when it has not."""
    script = [sys.executable, "scripts/generate_ec2_policy.py", "--check"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
