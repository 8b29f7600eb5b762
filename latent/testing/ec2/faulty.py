"""What a test may do to the cloud while it is there."""

from __future__ import annotations

from typing import Any

from latent.testing.ec2.values import When


class Faulty:
    """What can go wrong with EC2. Each lasts until `heal`, unless it says how often.

    ``action``: the name of one, ``"RunInstances"``, or ``"*"`` for every one.
    ``times``: how often; None for always.
    """

    def control(self, what: str, /, **arguments: Any) -> Any:
        """Tell the cloud something, and what it says to that. `CloudError` if it does not understand."""
        raise NotImplementedError

    def heal(self) -> None:
        """Nothing is wrong any more. Calls that hang are cut; instances that are gone stay gone."""
        self.control("heal")

    # -- calls

    def throttle(self, rate: float, burst: float = 1, *, action: str = "*") -> None:
        """Answer RequestLimitExceeded to what exceeds ``rate`` calls a second, once ``burst`` calls have been spent at once."""
        self.control("throttle", rate=rate, burst=burst, action=action)

    def throttle_instances(self, rate: float = 2, burst: float = 1000) -> None:
        """The same, of instances that RunInstances asks for: AWS's own limits are the defaults."""
        self.control("throttle_instances", rate=rate, burst=burst)

    def fail(
        self,
        action: str = "*",
        *,
        status: int = 500,
        code: str = "InternalError",
        message: str = "An internal error has occurred",
        times: int | None = 1,
        when: When = "before",
    ) -> None:
        """Answer an error."""
        self.control("fail", action=action, status=status, code=code, message=message, times=times, when=when)

    def cut(self, action: str = "*", *, times: int | None = 1, when: When = "before") -> None:
        """Close the connection in place of an answer."""
        self.control("cut", action=action, times=times, when=when)

    def hang(self, action: str = "*", *, times: int | None = 1, when: When = "before") -> None:
        """Never answer, until the client has gone away or `heal`."""
        self.control("hang", action=action, times=times, when=when)

    def delay(self, action: str = "*", seconds: float = 1, *, times: int | None = None, when: When = "before") -> None:
        """Answer later."""
        self.control("delay", action=action, seconds=seconds, times=times, when=when)

    def duplicate(self, action: str = "*", *, times: int | None = 1) -> None:
        """Deliver it twice, one after the other. The client gets the first answer; the call is counted once."""
        self.control("duplicate", action=action, times=times)

    def expire_credentials(self, code: str = "RequestExpired") -> None:
        """Those that are in use now are good for nothing any more. `Cloud.renew_credentials` makes others."""
        self.control("expire_credentials", code=code)

    def deny(self, action: str) -> None:
        """Answer UnauthorizedOperation, as for a policy that lacks it."""
        message = f"You are not authorized to perform this operation. User is not authorized to perform: ec2:{action}"
        self.fail(action, status=403, code="UnauthorizedOperation", message=message, times=None)

    # -- room for instances

    def insufficient(
        self,
        *,
        instance_type: str | None = None,
        zone: str | None = None,
        subnet: str | None = None,
        market: str | None = None,
        left: int = 0,
        times: int | None = None,
        code: str = "InsufficientInstanceCapacity",
    ) -> None:
        """There is no room for such instances but for ``left`` more: fewer are launched than asked for, or none.

        What is None is any. ``zone`` holds for its subnets as well. ``market``: "spot" or "on-demand".
        ``times``: how many launches are refused.
        """
        matching = {"instance_type": instance_type, "zone": zone, "subnet": subnet, "market": market}
        self.control("insufficient", left=left, times=times, code=code, **matching)

    def quota(self, most: int, *, code: str = "InstanceLimitExceeded") -> None:
        """The account may have ``most`` instances that are not terminated: fewer are launched than asked for, or none.

        ``code``: or "VcpuLimitExceeded", or "MaxSpotInstanceCountExceeded", which holds for spot instances alone.
        """
        self.control("quota", most=most, code=code)

    def spot_never_fulfilled(self) -> None:
        """RequestSpotInstances leaves requests open for ever; RunInstances for a spot instance finds no capacity."""
        self.control("spot_never_fulfilled")

    def spot_price(self, price: float, *, instance_type: str | None = None, zone: str | None = None) -> None:
        """What such spot instances cost from now on, dollars an hour; 0.04 until then. Whoever offers less gets none."""
        self.control("spot_price", price=price, instance_type=instance_type, zone=zone)

    # -- what is seen

    def slow(self, *, pending: float | None = None, ending: float | None = None) -> None:
        """From now on instances are that long pending, and that long stopping or shutting down."""
        self.control("slow", pending=pending, ending=ending)

    def not_found_for(self, seconds: float) -> None:
        """An instance launched from now on is known to no other call for so long: as DescribeInstances sometimes is behind."""
        self.control("not_found_for", seconds=seconds)

    def set_status(self, instance_id: str, *, instance: str = "ok", system: str = "ok") -> None:
        """What DescribeInstanceStatus says of it: "ok", "impaired", "initializing", "insufficient-data"."""
        self.control("set_status", instance_id=instance_id, instance=instance, system=system)

    def age(self, instance_id: str, seconds: float) -> None:
        """It was launched that much earlier."""
        self.control("age", instance_id=instance_id, seconds=seconds)

    # -- what happens to instances

    def vanish(self, instance_id: str) -> None:
        """It is gone, and nothing knows that it ever was there."""
        self.control("vanish", instance_id=instance_id)

    def crash(self, instance_id: str) -> None:
        """All its processes are killed; EC2 still says that it is running."""
        self.control("crash", instance_id=instance_id)

    def interrupt(self, instance_id: str, *, code: str = "Server.InternalError", state: str = "terminated") -> None:
        """AWS ends it, with ``code`` as the reason of its state. ``state``: or "stopped"."""
        self.control("interrupt", instance_id=instance_id, code=code, state=state)

    def spot_notice(self, instance_id: str, seconds: float = 120) -> None:
        """Its metadata tell that it is ended after ``seconds``; then it is."""
        self.control("spot_notice", instance_id=instance_id, seconds=seconds)
