"""The calls whose answers moto alone would get wrong. Everything here runs under the cloud's lock."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from latent.testing.ec2 import describing, launching
from latent.testing.ec2.answers import Answer, Refused, Request, error, result, with_next_token
from latent.testing.ec2.backend import Backend
from latent.testing.ec2.faults import Faults
from latent.testing.ec2.launching import Launch
from latent.testing.ec2.region import Launched, Region
from latent.testing.ec2.room import Wanted
from latent.testing.ec2.spot import SpotMarket

CONSOLE = 64 * 1024
"""Bytes that GetConsoleOutput tells at most: the last."""


class Actions:
    """``console``: what an instance has printed, by its id."""

    def __init__(self, backend: Backend, faults: Faults, clock: Callable[[], float], console: Callable[[str], str]) -> None:
        self._backend, self._faults, self._clock, self._console = backend, faults, clock, console
        self._spot = SpotMarket(backend.spot_request_class())
        self._replies: dict[tuple[str, str, str], tuple[Mapping[str, str], Answer]] = {}
        self._handlers: dict[str, Callable[[Region, Request], Answer]] = {
            "RunInstances": self._run_instances,
            "DescribeInstances": self._describe_instances,
            "DescribeInstanceStatus": self._describe_instance_status,
            "StartInstances": self._start_instances,
            "StopInstances": self._stop_instances,
            "TerminateInstances": self._known_instances,
            "RebootInstances": self._known_instances,
            "ModifyInstanceAttribute": self._modify_instance,
            "CreateTags": self._create_tags,
            "DeleteTags": self._check_tagged,
            "GetConsoleOutput": self._get_console_output,
            "RequestSpotInstances": self._request_spot_instances,
            "DescribeSpotPriceHistory": lambda region, request: self._spot.history(region, request, time.time()),
        }

    def carry_out(self, region: Region, request: Request) -> Answer:
        """`Refused` is an answer as well."""
        try:
            handler = self._handlers.get(request.action) if request.service == "ec2" else None
            return self._idempotent(request) if handler is None else handler(region, request)
        except Refused as refused:
            return error(refused)

    def _idempotent(self, request: Request) -> Answer:
        """Whatever it is: the same ClientToken is answered with the same."""
        token = request.parameters.get("ClientToken", "")
        key = (request.region, request.action, token)
        if token and key in self._replies:
            parameters, answer = self._replies[key]
            if not launching.same(parameters, request.parameters):
                raise launching.mismatch()
            return answer
        answer = self._backend.call(request)
        if token and answer.status == 200:
            self._replies[key] = (dict(request.parameters), answer)
        return answer

    # -- launching

    def _run_instances(self, region: Region, request: Request) -> Answer:
        document = request.document
        launch = launching.read(document, self._template(region, document))
        before = region.launched(launch.token, request.parameters)
        if before is not None:
            return self._again(region, before, request)
        self._check_account(region, launch)
        if str(document.get("DryRun", "")).lower() == "true":
            return self._backend.call(request)
        if launch.market == "spot":
            self._spot.check_offer(region, launch)
        try:
            self._faults.check_instances(region.prepare(launch), self._clock())
            answer = self._backend.call(request)
            if answer.error == "NoSuchEntity":
                profile = "".join(launch.document["IamInstanceProfile"].values())
                raise Refused(
                    "InvalidParameterValue",
                    f"Value ({profile}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
                )
            if answer.status != 200:
                return answer
            if launch.market == "spot":
                self._spot.record(region, region.last_reservation.instances, launch)
                # Again, now that the instances name their requests.
                answer = self._again(region, Launched({}, region.last_reservation), request)
            region.remember(launch.token, request.parameters, region.last_reservation)
        finally:
            region.forget_launch()
        return answer

    def _again(self, region: Region, launched: Launched, request: Request) -> Answer:
        """The answer to a launch that has been made. moto would give it its profile once more."""
        rest = {name: value for name, value in request.parameters.items() if not name.startswith("IamInstanceProfile.")}
        answer: Answer = region.replay(launched, lambda: self._backend.call(request.with_parameters(rest)))
        return answer

    def _template(self, region: Region, document: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = document.get("LaunchTemplate")
        if not wanted:
            return {}
        templates = region.backend.launch_templates
        found = [
            one
            for one in templates.values()
            if one.id == wanted.get("LaunchTemplateId") or one.name == wanted.get("LaunchTemplateName")
        ]
        if not found and "LaunchTemplateId" in wanted:
            identity = wanted["LaunchTemplateId"]
            raise Refused(
                "InvalidLaunchTemplateId.NotFound",
                f"The specified launch template, with template ID {identity}, does not exist.",
            )
        if not found:
            name = wanted.get("LaunchTemplateName")
            raise Refused(
                "InvalidLaunchTemplateName.NotFoundException",
                f"The specified launch template, with template name {name}, does not exist.",
            )
        data: Mapping[str, Any] = found[0].get_version(wanted.get("Version", found[0].default_version_number)).data
        return data

    def _check_account(self, region: Region, launch: Launch) -> None:
        image, kind, key = launch.document["ImageId"], launch.instance_type, launch.document.get("KeyName")
        if not image.startswith("ami-"):
            raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{image}" (expecting "ami-...")')
        if image not in region.backend.amis:
            raise Refused("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
        if kind not in self._backend.instance_types() and kind != "m1.small":
            raise Refused("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        if key is not None and key not in region.backend.key_pairs:
            raise Refused("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
        groups = [one for zones in region.backend.groups.values() for one in zones.values()]
        for group in launch.document.get("SecurityGroupId", []):
            if group not in {one.id for one in groups}:
                raise Refused("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
        for group in launch.document.get("SecurityGroup", []):
            if group not in {one.name for one in groups} | {one.id for one in groups}:
                raise Refused("InvalidGroup.NotFound", f"The security group '{group}' does not exist in default VPC")

    def _request_spot_instances(self, region: Region, request: Request) -> Answer:
        document = request.document
        wanted = document.get("LaunchSpecification", {})
        place = wanted.get("Placement", {}).get("AvailabilityZone") or region.zone_of(wanted.get("SubnetId", ""))
        price = region.room.prices.of(wanted.get("InstanceType", "m1.small"), place or min(region.zones))
        if float(document.get("SpotPrice") or price) < price:
            region.backend.request_spot_instances = self._spot.never(region, "price-too-low")
        elif region.room.no_spot:
            region.backend.request_spot_instances = self._spot.never(region)
        else:
            region.backend.__dict__.pop("request_spot_instances", None)
        return self._idempotent(request)

    # -- looking

    def _describe_instances(self, region: Region, request: Request) -> Answer:
        region.check_ids(request.document.get("InstanceId", []))
        page, rest = describing.read(request, region.lives)
        region.select = page.of_reservations
        try:
            answer = self._backend.call(rest)
        finally:
            region.select = None
        return with_next_token(answer, request.action, page.next_token)

    def _describe_instance_status(self, region: Region, request: Request) -> Answer:
        region.check_ids(request.document.get("InstanceId", []))
        page, rest = describing.read(request, region.lives)
        everything = request.parameters.get("IncludeAllInstances", "").lower() == "true"

        def select(reservations: list[Any]) -> list[Any]:
            states = None if everything else "running"
            for reservation in reservations:
                reservation.instances = [one for one in reservation.instances if states in (None, one._state.name)]
            return page.of_reservations(reservations)

        region.select = select
        try:
            answer = self._backend.call(rest)
        finally:
            region.select = None
        return with_next_token(answer, request.action, page.next_token)

    def _get_console_output(self, region: Region, request: Request) -> Answer:
        (life,) = region.check_ids([request.parameters.get("InstanceId", "")])
        text = self._console(life.id).encode()[-CONSOLE:]
        moment = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        output = f"<output>{base64.b64encode(text).decode()}</output>" if text else ""
        return result(request.action, f"<instanceId>{life.id}</instanceId><timestamp>{moment}</timestamp>{output}")

    # -- changing

    def _known_instances(self, region: Region, request: Request) -> Answer:
        ids = request.document.get("InstanceId", [])
        if not ids:
            raise Refused("MissingParameter", "The request must contain the parameter InstanceId")
        for life in region.check_ids(ids):
            if request.action == "RebootInstances" and life.state != "running":
                raise Refused(*_wrong_state(life.id, "rebooted"))
        return self._backend.call(request)

    def _start_instances(self, region: Region, request: Request) -> Answer:
        lives = region.check_ids(request.document.get("InstanceId", []))
        for life in lives:
            if life.state not in ("stopped", "pending", "running"):
                raise Refused(*_wrong_state(life.id, "started"))
        starting = [life for life in lives if life.state == "stopped"]
        for life in starting:
            kind, subnet = str(life.instance.instance_type), str(life.instance.subnet_id or "")
            region.room.choose([Wanted(1, 1, kind, life.zone, subnet, life.market)], {})
        return self._backend.call(request)

    def _stop_instances(self, region: Region, request: Request) -> Answer:
        hibernate = request.parameters.get("Hibernate", "").lower() == "true"
        lives = region.check_ids(request.document.get("InstanceId", []))
        for life in lives:
            if life.state not in ("running", "stopping", "stopped"):
                raise Refused(*_wrong_state(life.id, "stopped"))
            if life.market == "spot" and not life.lasting:
                raise Refused(
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{life.id}' because it is associated with a one-time Spot Instance "
                    "request. You can only stop Spot Instances associated with persistent Spot Instance requests.",
                )
            if hibernate and not life.hibernates:
                raise Refused("UnsupportedHibernationConfiguration", f"Instance '{life.id}' is not configured for hibernation.")
        for life in lives:
            life.frozen = hibernate and life.state == "running"
        return self._backend.call(request)

    def _modify_instance(self, region: Region, request: Request) -> Answer:
        (life,) = region.check_ids([request.parameters.get("InstanceId", "")])
        user_data = request.parameters.get("UserData.Value")
        if user_data is None:
            return self._idempotent(request)
        launching.check_user_data(user_data)
        if life.state != "stopped":
            raise Refused("IncorrectInstanceState", f"The instance '{life.id}' is not in the 'stopped' state.")
        # moto decodes it once too often.
        once_more = base64.b64encode(user_data.encode()).decode()
        return self._idempotent(request.with_parameters({**request.parameters, "UserData.Value": once_more}))

    def _create_tags(self, region: Region, request: Request) -> Answer:
        launching.check_tags(request.document.get("Tag", []))
        return self._check_tagged(region, request)

    def _check_tagged(self, region: Region, request: Request) -> Answer:
        region.check_ids([one for one in request.document.get("ResourceId", []) if one.startswith("i-")])
        return self._idempotent(request)


def _wrong_state(instance_id: str, done: str) -> tuple[str, str]:
    return "IncorrectInstanceState", f"The instance '{instance_id}' is not in a state from which it can be {done}."
