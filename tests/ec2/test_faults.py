"""AWS's codes become our errors, with the code and what to do in the message."""

from __future__ import annotations

import botocore.exceptions
import pytest

from latent.errors import (
    LatentError,
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    LatentWorkerQuotaError,
    LatentWorkerThrottled,
)
from latent_ec2.faults import (
    TABLE,
    CredentialsRefused,
    NoSuchInstance,
    OtherParameters,
    Unanswered,
    WrongState,
    code_of,
    next_choice,
    translate,
    unresolved,
)
from tests.ec2.fake_ec2 import client_error

LABEL = "ec2 eu-west-1 (AKIA…XY)"


def translated(code: str, message: str = "it says so", status: int = 400) -> Exception:
    error = client_error(code, message, status)
    told = translate(error, LABEL, "run_instances")
    told.__cause__ = error
    return told


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        ("RequestLimitExceeded", LatentWorkerThrottled, "asked again"),
        ("Throttling", LatentWorkerThrottled, "asked again"),
        ("ThrottlingException", LatentWorkerThrottled, "asked again"),
        ("Client.RequestLimitExceeded", LatentWorkerThrottled, "asked again"),
        ("InsufficientInstanceCapacity", LatentWorkerCapacityError, "more instance types"),
        ("Server.InsufficientInstanceCapacity", LatentWorkerCapacityError, "more instance types"),
        ("InsufficientHostCapacity", LatentWorkerCapacityError, "more instance types"),
        ("InsufficientFreeAddressesInSubnet", LatentWorkerCapacityError, "more subnets"),
        ("SpotMaxPriceTooLow", LatentWorkerCapacityError, "max_spot_price"),
        ("InstanceLimitExceeded", LatentWorkerQuotaError, "Service Quotas"),
        ("VcpuLimitExceeded", LatentWorkerQuotaError, "Service Quotas"),
        ("MaxSpotInstanceCountExceeded", LatentWorkerQuotaError, "Service Quotas"),
        ("AddressLimitExceeded", LatentWorkerQuotaError, "Service Quotas"),
        ("VolumeLimitExceeded", LatentWorkerQuotaError, "Service Quotas"),
        ("AuthFailure", CredentialsRefused, "secret_identifier"),
        ("InvalidClientTokenId", CredentialsRefused, "secret_identifier"),
        ("SignatureDoesNotMatch", CredentialsRefused, "secret_identifier"),
        ("ExpiredToken", CredentialsRefused, "renew"),
        ("RequestExpired", CredentialsRefused, "clock"),
        ("UnauthorizedOperation", LatentWorkerConfigurationError, "IAM policy"),
        ("OptInRequired", LatentWorkerConfigurationError, "settle it with AWS"),
        ("InvalidAMIID.NotFound", LatentWorkerConfigurationError, "correct ami"),
        ("InvalidAMIID.Malformed", LatentWorkerConfigurationError, "correct ami"),
        ("InvalidAMIID.Unavailable", LatentWorkerConfigurationError, "correct ami"),
        ("InvalidKeyPair.NotFound", LatentWorkerConfigurationError, "keypair_name"),
        ("InvalidGroup.NotFound", LatentWorkerConfigurationError, "security_group_ids"),
        ("InvalidGroupId.Malformed", LatentWorkerConfigurationError, "security_group_ids"),
        ("InvalidSecurityGroupID.NotFound", LatentWorkerConfigurationError, "security_group_ids"),
        ("InvalidSubnetID.NotFound", LatentWorkerConfigurationError, "subnet_id"),
        ("VPCIdNotSpecified", LatentWorkerConfigurationError, "subnet_id"),
        ("Unsupported", LatentWorkerConfigurationError, "not offered there"),
        ("UnsupportedHibernationConfiguration", LatentWorkerConfigurationError, "stop_mode"),
        ("InvalidInstanceType", LatentWorkerConfigurationError, "instance_type"),
        ("InvalidZone.NotFound", LatentWorkerConfigurationError, "placement"),
        ("InvalidLaunchTemplateName.NotFoundException", LatentWorkerConfigurationError, "launch_template"),
        ("InvalidVolume.NotFound", LatentWorkerConfigurationError, "volumes"),
        ("InvalidBlockDeviceMapping", LatentWorkerConfigurationError, "block_device_map"),
        ("InvalidAllocationID.NotFound", LatentWorkerConfigurationError, "elastic_ip"),
        ("InvalidUserData.Malformed", LatentWorkerConfigurationError, "user_data"),
        ("InvalidParameterValue", LatentWorkerConfigurationError, "declaration"),
        ("InvalidParameterCombination", LatentWorkerConfigurationError, "declaration"),
        ("MissingParameter", LatentWorkerConfigurationError, "declaration"),
        ("InvalidInstanceID.NotFound", NoSuchInstance, "not known yet"),
        ("IncorrectInstanceState", WrongState, "changed"),
        ("IdempotentParameterMismatch", OtherParameters, "that launch"),
        ("InternalError", Unanswered, "own failure"),
        ("Unavailable", Unanswered, "own failure"),
        ("ServiceUnavailable", Unanswered, "own failure"),
        ("SomethingNew", LatentWorkerFailedToSubstantiate, "it says so"),
    ],
)
def test_codes(code: str, kind: type[Exception], remedy: str) -> None:
    """The type says what happens next; the message has the account, the code, AWS's words and the remedy."""
    error = translated(code)
    assert type(error) is kind
    for part in (LABEL, "run_instances", code.removeprefix("Client.").removeprefix("Server."), "it says so", remedy):
        assert part in str(error)
    assert code_of(error) == code


def test_status_counts_where_the_code_says_nothing() -> None:
    """A 5xx is EC2's own failure and a 429 means fewer calls, but capacity and throttling come as 5xx as well."""
    assert type(translated("Strange", status=502)) is Unanswered
    assert type(translated("Strange", status=429)) is LatentWorkerThrottled
    assert type(translated("RequestLimitExceeded", status=503)) is LatentWorkerThrottled
    assert type(translated("InsufficientInstanceCapacity", status=500)) is LatentWorkerCapacityError


def test_instances_that_are_not_there_are_named() -> None:
    """All ids of the message are handed on: the others can be asked for without them."""
    error = translated("InvalidInstanceID.NotFound", "The instance IDs 'i-0a1b2c3d4e5f60718, i-00000000000000002' do not exist")
    assert isinstance(error, NoSuchInstance)
    assert error.ids == ("i-0a1b2c3d4e5f60718", "i-00000000000000002")


def test_a_long_message_is_cut() -> None:
    """A refusal has pages of encoded details, which no log needs."""
    assert len(str(translated("UnauthorizedOperation", "Encoded authorization failure message: " + "x" * 5000))) < 1000


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InsufficientInstanceCapacity", True),
        ("SpotMaxPriceTooLow", True),
        ("MaxSpotInstanceCountExceeded", True),
        ("VcpuLimitExceeded", True),
        ("Unsupported", True),
        ("InvalidAMIID.NotFound", False),
        ("UnauthorizedOperation", False),
        ("RequestLimitExceeded", False),
        ("InternalError", False),
        ("AddressLimitExceeded", False),
    ],
)
def test_when_another_choice_may_do_better(code: str, expected: bool) -> None:
    """Only where the answer is certain, and is about what was chosen."""
    assert next_choice(translated(code)) is expected


def test_partial_capacity_counts_as_none() -> None:
    """A launch that had no room for a member is no error of AWS's, but the next choice is worth trying."""
    assert next_choice(LatentWorkerCapacityError("EC2 had room for 1 of 2 instances"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), Unanswered),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="http://x"), Unanswered),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), Unanswered),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="http://x"), Unanswered),
        (botocore.exceptions.SSLError(endpoint_url="http://x", error="bad"), LatentWorkerConfigurationError),
        (botocore.exceptions.NoCredentialsError(), CredentialsRefused),
        (botocore.exceptions.PartialCredentialsError(provider="env", cred_var="x"), CredentialsRefused),
        (botocore.exceptions.NoRegionError(), LatentWorkerConfigurationError),
        (botocore.exceptions.ProfileNotFound(profile="x"), LatentWorkerConfigurationError),
        (botocore.exceptions.ParamValidationError(report="x"), LatentWorkerConfigurationError),
        (OSError("reset"), Unanswered),
    ],
)
def test_what_never_came_back(error: Exception, kind: type[Exception]) -> None:
    """What was lost on the way is told apart from what is wrong here."""
    assert type(translate(error, LABEL)) is kind


def test_nothing_was_sent_to_who_refused_the_connection() -> None:
    """Then nothing can have been done; a timeout leaves it open."""
    refused = botocore.exceptions.EndpointConnectionError(endpoint_url="http://x", error=ConnectionRefusedError(111, "refused"))
    told = translate(refused, LABEL)
    assert isinstance(told, Unanswered)
    assert not told.sent
    lost = translate(botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), LABEL)
    assert isinstance(lost, Unanswered)
    assert lost.sent
    assert not unresolved(refused)


def test_our_own_errors_stay() -> None:
    """What was translated already, and what is a bug, comes out as it went in."""
    ours, bug = LatentWorkerCapacityError("full"), ZeroDivisionError()
    assert translate(ours, LABEL) is ours
    assert translate(bug, LABEL) is bug


def test_every_row_has_a_remedy() -> None:
    """And an error that a build may be told."""
    for row in TABLE:
        assert row.remedy
        assert issubclass(row.error, LatentError)
