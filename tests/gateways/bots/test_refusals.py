"""How long calls may take, and what they are refused with: without a controller."""

import grpc
import pytest

from latent.errors import ConfigError, EnrolmentRefused, ProtocolError, StoreError
from latent.gateways.bots import errors
from latent.gateways.bots.calls import DETAILS_KEY
from latent.gateways.bots.patience import due_in, poll_seconds
from latent.gateways.bots.service import Service
from tests.gateways.bots.client import M

Code = grpc.StatusCode

UPDATE = "UpdateBotSession"


@pytest.mark.parametrize(
    ("deadline", "keep_alive", "seconds"),
    [(None, 600, 240), (300, 600, 240), (1000, 600, 480), (10, 600, 8), (None, 20, 16), (3.75, 600, 3), (0, 600, 0)],
)
def test_a_call_waits_for_most_of_the_time_that_it_has(deadline, keep_alive, seconds):
    """Four fifths of its deadline, of 300 s where it has none; and of the keep-alive at most."""
    assert poll_seconds(deadline, keep_alive) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("keep_alive", "lease_seconds", "seconds"), [(600, None, 600), (600, 60, 10), (600, 15, 5), (5, 60, 5), (5, None, 5)]
)
def test_the_next_call_is_due(keep_alive, lease_seconds, seconds):
    """When the keep-alive is over; with a lease sooner, so that it is renewed twice before it lapses."""
    assert due_in(keep_alive, lease_seconds) == seconds


@pytest.mark.parametrize("error", [errors.RetriableError("not now", 2.5), StoreError("the disk is full; free some space")])
def test_what_another_call_may_get_done_is_unavailable(error):
    """With the time after which to try, in the message's own format; it is not counted as an exception."""
    service = Service({})
    refused = service.refusal(error, UPDATE)
    assert (refused.code, refused.message) == (Code.UNAVAILABLE, str(error))
    ((key, value),) = refused.details
    status, info = M["Status"].FromString(value), M["RetryInfo"]()
    info.MergeFromString(status.details[0].value)
    wait = getattr(error, "retry_after", 1.0)
    assert (key, status.code, status.message) == (DETAILS_KEY, 14, str(error))
    assert status.details[0].type_url == "type.googleapis.com/google.rpc.RetryInfo"
    assert info.retry_delay.seconds + info.retry_delay.nanos / 1e9 == wait
    assert not service.exceptions


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgumentError("x"), Code.INVALID_ARGUMENT),
        (errors.BotSessionMismatchError("x"), Code.INVALID_ARGUMENT),
        (errors.BotSessionClosedError("x"), Code.INVALID_ARGUMENT),
        (errors.DuplicateBotSessionError("x"), Code.ABORTED),
        (errors.LeaseLostError("x"), Code.DATA_LOSS),
        (EnrolmentRefused("x"), Code.UNAUTHENTICATED),
        (ProtocolError("x"), Code.INVALID_ARGUMENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_bot_is_at_fault_for(error, code):
    """Each error has its status; none is counted as an exception."""
    service = Service({})
    refused = service.refusal(error, UPDATE)
    assert (refused.code, refused.message, refused.details) == (code, "x", ())
    assert not service.exceptions


def test_what_nobody_foresaw_is_counted_and_not_told(flush_logged_errors):
    """The log has it; a status has little room, and a bot no use for it."""
    service = Service({})
    try:
        raise ZeroDivisionError("secret")
    except ZeroDivisionError as error:
        refused = service.refusal(error, UPDATE)
    assert (refused.code, "secret" in refused.message) == (Code.INTERNAL, False)
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    refused = service.refusal(ConfigError(["y" * 5000]), UPDATE)
    assert (refused.code, refused.message) == (Code.FAILED_PRECONDITION, "y" * 1000)
    assert service.exceptions == {UPDATE: 2}
