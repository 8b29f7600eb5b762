"""What an error of EC2, or of boto3 on the way to it, means: one table of AWS's codes, read from the top."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import botocore.exceptions as botocore
from attrs import frozen

from latent.errors import (
    LatentError,
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    LatentWorkerQuotaError,
    LatentWorkerThrottled,
)

MESSAGE_LENGTH = 600
"""Characters of AWS's message that are told: what an administrator may decode in a refusal is far longer."""


class Unanswered(LatentWorkerFailedToSubstantiate):
    """EC2 can't be reached, or failed by itself. ``sent``: whether what was asked for may have been done all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class CredentialsRefused(LatentWorkerConfigurationError):
    """EC2 does not know who asks, or does not any more."""


class NoSuchInstance(LatentWorkerFailedToSubstantiate):
    """``ids``: the instances that EC2 does not know (any more, or yet)."""

    def __init__(self, message: str, ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids


class WrongState(LatentWorkerFailedToSubstantiate):
    """The instance is in a state in which this can't be asked of it."""


class OtherParameters(LatentWorkerFailedToSubstantiate):
    """There was a launch of this ClientToken, with other parameters: see what it made."""


@frozen
class Row:
    """``codes`` has to match all of AWS's code. ``next_choice``: whether another type, subnet or market may do better."""

    codes: re.Pattern[str]
    error: type[LatentWorkerFailedToSubstantiate]
    remedy: str
    next_choice: bool = False


def _row(codes: str, error: type[LatentWorkerFailedToSubstantiate], remedy: str, *, next_choice: bool = False) -> Row:
    return Row(re.compile(codes), error, remedy, next_choice)


TABLE = (
    _row(
        r"RequestLimitExceeded|(EC2)?Thrott(ling|led)(Exception)?|RequestThrottled(Exception)?|TooManyRequests(Exception)?"
        r"|BandwidthLimitExceeded|SlowDown|PriorRequestNotComplete",
        LatentWorkerThrottled,
        "EC2 asks for fewer calls; it is asked again",
    ),
    # no room, now
    _row(
        r"Insufficient(Instance|Host|ReservedInstance)?Capacity\w*",
        LatentWorkerCapacityError,
        "EC2 has no room just now: give more instance types, subnets or markets",
        next_choice=True,
    ),
    _row(
        r"SpotMaxPriceTooLow",
        LatentWorkerCapacityError,
        "spot instances cost more just now: raise max_spot_price, or give other types",
        next_choice=True,
    ),
    _row(
        r"InsufficientFreeAddressesInSubnet",
        LatentWorkerCapacityError,
        "the subnet is full: give more subnets, or a larger one",
        next_choice=True,
    ),
    _row(r"InsufficientAddressCapacity", LatentWorkerCapacityError, "EC2 has no more elastic addresses just now"),
    _row(r"InsufficientVolumeCapacity", LatentWorkerCapacityError, "EC2 has no room for the volume: give another zone or type"),
    # what the account may have
    _row(
        r"(Vcpu|Instance)LimitExceeded|MaxSpot\w+Exceeded|MaxSpotInstanceCountExceeded",
        LatentWorkerQuotaError,
        "end other instances, or ask AWS (Service Quotas) for more",
        next_choice=True,
    ),
    _row(
        r"\w*LimitExceeded|\w*CountExceeded|RequestResourceCountExceeded",
        LatentWorkerQuotaError,
        "ask AWS (Service Quotas) for more",
    ),
    # who asks
    _row(
        r"ExpiredToken(Exception)?|RequestExpired|InvalidClientTokenIdExpired",
        CredentialsRefused,
        "renew the session's credentials (aws sso login, a new session token), and see that the clock is right",
    ),
    _row(
        r"AuthFailure|InvalidClientTokenId|UnrecognizedClient(Exception)?|InvalidAccessKeyId|MissingAuthenticationToken"
        r"|SignatureDoesNotMatch|IncompleteSignature|InvalidSignature(Exception)?|InvalidSecurity(Token)?",
        CredentialsRefused,
        "correct identifier and secret_identifier, or the profile that boto3 finds",
    ),
    _row(
        r"UnauthorizedOperation|AccessDenied(Exception)?|NotAuthorized|OperationNotPermitted",
        LatentWorkerConfigurationError,
        "allow it in the IAM policy of the credentials (docs/ec2-iam.md has it), or give others",
    ),
    _row(
        r"OptInRequired|PendingVerification|Blocked|AccountDisabled|SubscriptionRequired\w*",
        LatentWorkerConfigurationError,
        "settle it with AWS: the account may not use this now",
    ),
    # instances
    _row(r"InvalidInstanceID(\.\w+)?|InvalidInstanceId(\.\w+)?", NoSuchInstance, "it is gone, or not known yet"),
    _row(r"IncorrectInstanceState|IncorrectState|IncorrectInstanceStateException", WrongState, "ask again when it has changed"),
    _row(r"IdempotentParameterMismatch|IdempotentInstanceTerminated", OtherParameters, "look for what that launch made"),
    # what the declaration names
    _row(r"InvalidAMI\w*(\.\w+)?|AMINotFound", LatentWorkerConfigurationError, "correct ami: it has to be in this region"),
    _row(r"InvalidKeyPair(\.\w+)?|InvalidKey(\.\w+)?", LatentWorkerConfigurationError, "correct keypair_name, or make the key"),
    _row(
        r"Invalid(SecurityGroup|Group)(I[dD])?(\.\w+)?|InvalidSecurity\.\w+|SecurityGroupsPer\w+",
        LatentWorkerConfigurationError,
        "correct security_name or security_group_ids: they have to be in the subnet's VPC",
    ),
    _row(
        r"InvalidSubnet(I[dD])?(\.\w+)?|VPCIdNotSpecified|DefaultVpcDoesNotExist|InvalidVpcID\.\w+|MissingInput",
        LatentWorkerConfigurationError,
        "correct subnet_id: without one, the region needs a default VPC",
    ),
    _row(
        r"Unsupported|InstanceTypeNotSupported\w*|UnsupportedInstanceType\w*",
        LatentWorkerConfigurationError,
        "this type, market or feature is not offered there: give another instance_type, subnet or placement",
        next_choice=True,
    ),
    _row(
        r"UnsupportedHibernationConfiguration", LatentWorkerConfigurationError, "use stop_mode='stop', or an AMI that hibernates"
    ),
    _row(r"InvalidInstanceType|InvalidInstanceAttribute\w*", LatentWorkerConfigurationError, "correct instance_type"),
    _row(r"Invalid(Availability)?Zone(\.\w+)?", LatentWorkerConfigurationError, "correct placement: a zone of this region"),
    _row(r"InvalidLaunchTemplate\w*(\.\w+)?", LatentWorkerConfigurationError, "correct launch_template"),
    _row(r"InvalidUserData(\.\w+)?", LatentWorkerConfigurationError, "correct user_data: 16 KiB at most"),
    _row(
        r"Invalid(Volume|Snapshot)(ID)?(\.\w+)?|VolumeInUse", LatentWorkerConfigurationError, "correct volumes: same zone, free"
    ),
    _row(r"InvalidBlockDeviceMapping", LatentWorkerConfigurationError, "correct block_device_map"),
    _row(r"Invalid(AllocationID|Address)(\.\w+)?", LatentWorkerConfigurationError, "correct elastic_ip"),
    _row(r"InvalidIamInstanceProfile\w*(\.\w+)?", LatentWorkerConfigurationError, "correct instance_profile_name"),
    _row(
        r"Invalid\w*(\.\w+)*|Malformed\w*(\.\w+)*|Missing\w*|Unknown\w*|Unsupported\w*|ValidationError|\w+NotSupported|NoSuch\w+",
        LatentWorkerConfigurationError,
        "correct the worker's declaration",
    ),
)
"""No rows for what failed at EC2 or on the way there: see `translate`."""

BROKEN = re.compile(
    r"Internal(Error|Failure|ServerError)?|ServerInternal|(Service)?Unavailable|RequestTimeout(Exception)?|ConcurrentTagAccess"
)
"""Codes of what is EC2's own fault, whatever HTTP says."""

_UNSENT = (
    botocore.EndpointConnectionError,
    botocore.ConnectTimeoutError,
    botocore.ProxyConnectionError,
)
_LOST = (
    botocore.HTTPClientError,  # reading timed out, the connection was closed
    botocore.ConnectionError,
    botocore.IncompleteReadError,
    botocore.ResponseStreamingError,
)
_INSTANCE_ID = re.compile(r"\bi-[0-9a-f]+\b")


def translate(error: Exception, label: str, operation: str = "") -> Exception:
    """The error that the controller understands, in place of one of boto3's; one that is ours already stays as it is.

    ``label``: of the account; ``operation``: what was asked for.
    """
    if isinstance(error, LatentError):
        return error
    place = f"{label}: {operation}" if operation else label
    if isinstance(error, botocore.ClientError):
        return _translate_answer(error, place)
    text = str(error) or type(error).__name__
    if isinstance(error, botocore.SSLError):
        return LatentWorkerConfigurationError(
            f"{place}: {text}; give boto3 the certificates that fit the endpoint (AWS_CA_BUNDLE)"
        )
    if isinstance(error, _UNSENT):
        return Unanswered(f"{place}: {text}; see that the endpoint can be reached from here", sent=not _was_refused(error))
    if isinstance(error, _LOST):
        return Unanswered(f"{place}: {text}", sent=True)
    if isinstance(error, botocore.NoCredentialsError | botocore.PartialCredentialsError):
        remedy = "give identifier and secret_identifier, aws_id_file_path or session, or configure boto3"
        return CredentialsRefused(f"{place}: {text}; {remedy}")
    if isinstance(error, botocore.CredentialRetrievalError | botocore.TokenRetrievalError | botocore.SSOError):
        return CredentialsRefused(f"{place}: {text}; renew the credentials (aws sso login)")
    if isinstance(error, botocore.NoRegionError | botocore.InvalidRegionError):
        return LatentWorkerConfigurationError(f"{place}: {text.rstrip('.')}; give region='eu-west-1', for example")
    if isinstance(error, botocore.BotoCoreError | TypeError | ValueError):
        return LatentWorkerConfigurationError(f"{place}: {text}; correct the worker's declaration, or boto3's configuration")
    if isinstance(error, OSError):
        return Unanswered(f"{place}: {text}", sent=True)
    return error


def code_of(error: BaseException | None) -> str:
    """AWS's code of an error, be it boto3's or made by `translate`; empty if it has none."""
    while error is not None:
        if isinstance(error, botocore.ClientError):
            return str(error.response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def next_choice(error: BaseException) -> bool:
    """Whether nothing was made, and another instance type, subnet or market may have what this one lacks."""
    if isinstance(error, LatentWorkerCapacityError):
        return True
    row = _found(code_of(error))
    return row is not None and row.next_choice


def _translate_answer(error: botocore.ClientError, place: str) -> Exception:
    details: dict[str, Any] = dict(error.response.get("Error", {}))
    code = str(details.get("Code", "")).removeprefix("Client.").removeprefix("Server.")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 400)
    message = str(details.get("Message") or "no message").strip()
    if len(message) > MESSAGE_LENGTH:
        message = message[:MESSAGE_LENGTH] + "…"
    text = f"{place}: {code or status}: {message.rstrip('.')}"
    row = _found(code)
    if status == 429 and (row is None or row.error is not LatentWorkerThrottled):
        return LatentWorkerThrottled(f"{text}; EC2 asks for fewer calls")
    if BROKEN.fullmatch(code) or (
        status >= 500 and not (row and row.error in (LatentWorkerThrottled, LatentWorkerCapacityError))
    ):
        return Unanswered(f"{text}; it is EC2's own failure", sent=True)
    if row is None:
        return LatentWorkerFailedToSubstantiate(text)
    if row.error is NoSuchInstance:
        return NoSuchInstance(f"{text}; {row.remedy}", tuple(dict.fromkeys(_INSTANCE_ID.findall(message))))
    return row.error(f"{text}; {row.remedy}")


def _found(code: str) -> Row | None:
    return next((row for row in TABLE if row.codes.fullmatch(code)), None)


def _was_refused(error: BaseException) -> bool:
    """Whether nobody took the connection, so that nothing can have been done."""
    return any(
        isinstance(cause, ConnectionRefusedError)
        or type(cause).__name__ in ("NewConnectionError", "NameResolutionError", "gaierror")
        for cause in _causes(error)
    )


def unresolved(error: BaseException) -> bool:
    """Whether the endpoint's name means nothing here: a region that does not exist, or a network that is down."""
    return any(type(cause).__name__ in ("NameResolutionError", "gaierror") for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Everything that the error was made from: botocore and urllib3 hand causes on in their attributes, too."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        kwargs = getattr(one, "kwargs", None) or {}
        handed = (one.__cause__, one.__context__, getattr(one, "reason", None), kwargs.get("error"), *one.args)
        waiting += [cause for cause in handed if isinstance(cause, BaseException)]
