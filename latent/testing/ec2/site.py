"""What there is in a region before anybody asks for anything."""

from __future__ import annotations

from typing import Any

from latent.testing.ec2.backend import ACCOUNT

KEY_NAME = "latent"

IMAGES = ("ubuntu-24.04-amd64-20260101", "ubuntu-24.04-amd64-20260301", "windows-2025")
"""Names of the images that the account owns; ``ACCOUNT/NAME`` is where they are, which `valid_ami_location_regex` looks at."""


def furnish(backend: Any, region: str) -> dict[str, Any]:
    """Make it, in moto's object for the region; says what there is."""
    images = []
    for name in IMAGES:
        image = backend.register_image(name=name, description=name)
        image.image_location = f"{ACCOUNT}/{name}"
        images.append(image.id)
    backend.create_key_pair(KEY_NAME, "ed25519", {})
    vpc = backend.get_default_vpc()
    groups = backend.groups[vpc.id].values()
    group = next(one for one in groups if one.name == "default")
    return {
        "account_id": ACCOUNT,
        "images": images,
        "vpc": vpc.id,
        "subnets": {zone: subnet.id for zone, subnet in sorted(backend.get_default_subnets().items())},
        "security_group": group.id,
        "security_name": group.name,
        "key_name": KEY_NAME,
    }
