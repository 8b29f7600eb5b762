"""What an instance wrote to its console, for messages."""

from __future__ import annotations

from twisted.logger import Logger

from latent_ec2.region import Region

log = Logger()

LINES = 30
LENGTH = 4000
"""Lines, and characters, that a message has at most."""


async def last_lines(region: Region, instance_id: str) -> str:
    """The end of it; empty if there is nothing, or EC2 does not tell: it is the lesser of two troubles."""
    try:
        answer = await region.call("get_console_output", InstanceId=instance_id)
    except Exception as error:
        log.info("{id}: its console can't be read: {why}", id=instance_id, why=error)
        return ""
    text = "".join(char for char in str(answer.get("Output") or "") if char.isprintable() or char in "\n\t")
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines()[-LINES:])
    return lines[-LENGTH:]
