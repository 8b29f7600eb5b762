"""The table of what a bot says of a lease against what is known of it, cell by cell."""

import pytest

from latent.gateways.bots.sync import Verdict, verdict
from latent.model import LeaseState
from tests.gateways.bots.client import ACTIVE, CANCELLED, COMPLETED, PENDING

THEIRS = (None, 0, PENDING, ACTIVE, COMPLETED, CANCELLED, 99)

TABLE = {
    None: {COMPLETED: Verdict.IGNORED},
    LeaseState.PENDING: {
        None: Verdict.SENT,
        PENDING: Verdict.SENT,
        ACTIVE: Verdict.ACKNOWLEDGED,
        COMPLETED: Verdict.FINISHED,
    },
    LeaseState.ACTIVE: {ACTIVE: Verdict.HEARTBEAT, COMPLETED: Verdict.FINISHED},
    LeaseState.CANCELLED: {
        **dict.fromkeys(THEIRS, Verdict.TOLD),
        CANCELLED: Verdict.FREED,
    },
    LeaseState.COMPLETED: {None: Verdict.IGNORED, COMPLETED: Verdict.IGNORED},
}


@pytest.mark.parametrize("ours", TABLE)
@pytest.mark.parametrize("theirs", THEIRS)
def test_every_cell(theirs, ours):
    """What the table does not name is a loss."""
    assert verdict(theirs, ours) is TABLE[ours].get(theirs, Verdict.LOST)


def test_a_bot_that_was_told_of_a_cancellation_need_not_say_it_again():
    """A lease that it has dropped since then is free."""
    assert verdict(None, LeaseState.CANCELLED, told=True) is Verdict.FREED
    assert verdict(ACTIVE, LeaseState.CANCELLED, told=True) is Verdict.TOLD
