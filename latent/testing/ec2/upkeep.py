"""What AWS does by itself around the launch and the end of an instance, and moto does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def default_groups(backend: Any, kwargs: dict[str, Any], names: Sequence[str]) -> None:
    """An instance of the default VPC that names no group is in the default one. ``kwargs``: of moto's run_instances."""
    if names or kwargs.get("security_group_ids") or kwargs.get("nics"):
        return
    if kwargs.get("launch_template"):
        return
    subnet = kwargs.get("subnet_id")
    vpc = backend.get_subnet(subnet).vpc_id if subnet else backend.get_default_vpc().id
    kwargs["security_group_ids"] = [group.id for group in backend.groups[vpc].values() if group.name == "default"]


def after_launch(backend: Any, instances: Sequence[Any], document: Mapping[str, Any]) -> None:
    """``document``: of RunInstances. moto gives the instance profile to the first instance alone."""
    profile = document.get("IamInstanceProfile", {})
    for instance in instances[1:] if profile else ():
        backend.associate_iam_instance_profile(
            instance_id=instance.id,
            iam_instance_profile_name=profile.get("Name"),
            iam_instance_profile_arn=profile.get("Arn"),
        )
    if not any("DeleteOnTermination" in one for one in document.get("NetworkInterface", [])):
        for instance in instances:
            for interface in instance.nics.values():
                interface.delete_on_termination = True


def before_end(backend: Any, instance: Any) -> None:
    """Its address is free again; its spot request is closed."""
    for address in backend.addresses:
        if address.instance is not None and address.instance.id == instance.id:
            address.instance, address.association_id = None, None
            if address.eni is not None:
                address.eni.public_ip = None
            address.eni = None
    for request in backend.spot_instance_requests.values():
        if request.state == "active" and request.instance.id == instance.id:
            request.state, request._status_code = "closed", "instance-terminated-by-user"
