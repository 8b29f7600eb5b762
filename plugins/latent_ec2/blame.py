"""Which options an error of EC2 is about, by AWS's code: where a build decides one of them, the error is the build's own."""

from __future__ import annotations

import re

from latent_ec2.faults import code_of
from latent_ec2.recipe import RENDERED

_NOBODYS = re.compile(r"Unauthorized|AccessDenied|Auth|Expired|RequestExpired|Signature|InvalidClientToken|OptIn|Pending|Blocked")
"""About who asks: no build decides that."""

_ABOUT = (
    (r"InvalidAMI|AMINotFound", ("ami", "valid_ami_owners", "valid_ami_location_regex", "launch_template")),
    (r"InvalidKey", ("keypair_name", "launch_template")),
    (
        r"InvalidSecurityGroup|InvalidGroup|SecurityGroups",
        ("security_name", "security_group_ids", "subnet_id", "launch_template"),
    ),
    (r"InvalidSubnet|VPC|DefaultVpc", ("subnet_id", "placement", "launch_template")),
    (r"InvalidInstanceType|Unsupported|InstanceTypeNot", ("instance_type", "placement", "subnet_id", "ami", "launch_template")),
    (r"Invalid(Availability)?Zone", ("placement",)),
    (r"InvalidLaunchTemplate", ("launch_template",)),
    (r"InvalidUserData", ("user_data",)),
    (r"InvalidVolume|VolumeInUse", ("volumes",)),
    (r"InvalidBlockDevice|InvalidSnapshot", ("block_device_map",)),
    (r"InvalidAllocation|InvalidAddress", ("elastic_ip",)),
    (r"InvalidIamInstanceProfile", ("instance_profile_name",)),
)


def options_of(error: BaseException) -> tuple[str, ...]:
    """Those that it may be about: all, if the code does not say; none, if it is about the account."""
    code = code_of(error)
    if not code or _NOBODYS.match(code):
        return ()
    return next((about for codes, about in _ABOUT if re.match(codes, code)), RENDERED)
