"""What the credentials have to be allowed: every operation that the plugin calls, and no more. Makes docs/ec2-iam.md."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from attrs import frozen

from latent_ec2.instances import ATTEMPT, CONTROLLER, EXPIRES, WORKER


class Only(Enum):
    """What a permission is limited to, beside kinds of resources."""

    MADE_OURS = "what it makes carries the tag `latent:controller`"
    OURS = "it carries the tag `latent:controller`"
    WHEN_MADE = "while something is made, which gets its tags in the same call"
    OURS_AND_KEYS = f"it carries the tag `latent:controller`, and the tag is `{EXPIRES}`, `{WORKER}` or `{ATTEMPT}`"
    FOR_EC2 = "the role is handed to EC2"


@frozen
class Permission:
    """``on``: kinds of resources, as their ARNs name them; without, AWS does not limit the action to any.

    ``needs``: the option, or command, without which it is not called; empty: it always is.
    """

    action: str
    why: str
    needs: str = ""
    on: tuple[str, ...] = ()
    only: Only | None = None


ADDRESS, LIVE, VOLUMES, WARM = "`elastic_ip`", "`latent checkconfig --live`", "`volumes`", "`stop_mode`"

TABLE = (
    Permission("ec2:RunInstances", "start instances", on=("instance", "volume", "spot-instances-request"), only=Only.MADE_OURS),
    Permission(
        "ec2:RunInstances",
        "start them from and in what there is",
        on=("image", "key-pair", "launch-template", "network-interface", "security-group", "snapshot", "subnet"),
    ),
    Permission("ec2:CreateTags", "tag what is started, in the same call", only=Only.WHEN_MADE),
    Permission("ec2:CreateTags", "push the expiry of instances forward", on=("instance",), only=Only.OURS_AND_KEYS),
    Permission("ec2:TerminateInstances", "terminate instances", on=("instance",), only=Only.OURS),
    Permission("ec2:DescribeInstances", "see how instances are, and which there are"),
    Permission("ec2:DescribeInstanceStatus", "see their status checks"),
    Permission("ec2:DescribeVolumes", "see what was left behind, and (with `--live`) whether `volumes` are there"),
    Permission("ec2:DescribeAddresses", "see what was left behind, and which `elastic_ip` is"),
    Permission("ec2:GetConsoleOutput", "say in a failure what the instance wrote last", on=("instance",), only=Only.OURS),
    Permission("ec2:DeleteVolume", "delete volumes that their instances left behind", on=("volume",), only=Only.OURS),
    Permission("ec2:ReleaseAddress", "release addresses of its own", ADDRESS, on=("elastic-ip",), only=Only.OURS),
    Permission("ec2:AllocateAddress", "get addresses of its own", ADDRESS, on=("elastic-ip",), only=Only.MADE_OURS),
    Permission("ec2:AssociateAddress", "give an instance its address", ADDRESS, on=("instance",), only=Only.OURS),
    Permission("ec2:AssociateAddress", "give an instance its address", ADDRESS, on=("elastic-ip", "network-interface")),
    Permission("ec2:DisassociateAddress", "take it away again", ADDRESS, on=("elastic-ip",), only=Only.OURS),
    Permission("ec2:DisassociateAddress", "take it away again", ADDRESS, on=("instance", "network-interface")),
    Permission("ec2:AttachVolume", "attach volumes", VOLUMES, on=("instance",), only=Only.OURS),
    Permission("ec2:AttachVolume", "attach volumes", VOLUMES, on=("volume",)),
    Permission("ec2:StopInstances", "stop instances, to start them again", WARM, on=("instance",), only=Only.OURS),
    Permission("ec2:StartInstances", "start them again", WARM, on=("instance",), only=Only.OURS),
    Permission("ec2:ModifyInstanceAttribute", "give them the next attempt's user data", WARM, on=("instance",), only=Only.OURS),
    Permission("ec2:DescribeImages", "find the newest image", "`valid_ami_owners`, `valid_ami_location_regex`, " + LIVE),
    Permission("ec2:DescribeSpotPriceHistory", "see what spot instances cost", "`spot_instance` with `price_multiplier`"),
    Permission("ec2:DescribeAvailabilityZones", "see that the region answers, and its zones", LIVE),
    Permission("ec2:DescribeInstanceTypes", "see that `instance_type` is there", LIVE),
    Permission("ec2:DescribeKeyPairs", "see that `keypair_name` is there", LIVE),
    Permission("ec2:DescribeLaunchTemplateVersions", "see that `launch_template` is there", LIVE),
    Permission("ec2:DescribeSecurityGroups", "see that `security_name`, `security_group_ids` are there", LIVE),
    Permission("ec2:DescribeSubnets", "see that `subnet_id` is there", LIVE),
    Permission("iam:PassRole", "start instances with a profile", "`instance_profile_name`", on=("role",), only=Only.FOR_EC2),
    Permission("ssm:GetParameters", "look an image up", "`ami='resolve:ssm:...'`", on=("parameter",)),
)


def action_of(operation: str) -> str:
    """The action that boto3's operation of that name needs: "run_instances" -> "ec2:RunInstances"."""
    return "ec2:" + "".join(word.capitalize() for word in operation.split("_"))


def policy(table: Iterable[Permission] = TABLE) -> dict[str, Any]:
    """The policy document that allows all of the table and nothing else."""
    grouped: dict[tuple[tuple[str, ...], Only | None], list[str]] = {}
    for one in table:
        grouped.setdefault((one.on, one.only), []).append(one.action)
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": sorted(set(actions)),
                "Resource": sorted(_arn(kind) for kind in on) or "*",
                **({} if only is None else {"Condition": _CONDITIONS[only]}),
            }
            for (on, only), actions in grouped.items()
        ],
    }


_OURS = {"StringLike": {f"aws:ResourceTag/{CONTROLLER}": "?*"}}
_CONDITIONS: dict[Only, dict[str, Any]] = {
    Only.MADE_OURS: {"StringLike": {f"aws:RequestTag/{CONTROLLER}": "?*"}},
    Only.OURS: _OURS,
    Only.WHEN_MADE: {"StringEquals": {"ec2:CreateAction": ["AllocateAddress", "RunInstances"]}},
    Only.OURS_AND_KEYS: {**_OURS, "ForAllValues:StringEquals": {"aws:TagKeys": [ATTEMPT, EXPIRES, WORKER]}},
    Only.FOR_EC2: {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
}


def _arn(kind: str) -> str:
    if kind == "role":
        return "arn:aws:iam::*:role/*"
    account = "" if kind in ("image", "snapshot") else "*"  # AWS names no owner there
    return f"arn:aws:{'ssm' if kind == 'parameter' else 'ec2'}:*:{account}:{kind}/*"
