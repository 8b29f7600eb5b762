"""What a msgpack agent says of a command after it said that the command is over."""

import msgpack
import pytest

from latent.gateways.buildbot.messages import MsgpackLink


class Carrier:
    address = "agent:1"
    received = 0
    why_lost = ""

    def send(self, payload):
        """Nobody listens."""


class Receiver:
    """``heard``: all that it was told."""

    def __init__(self):
        self.heard = []

    def updated(self, key, value):
        self.heard.append((key, value))

    def completed(self, error):
        self.heard.append("completed")

    def lost(self, reason):
        self.heard.append(reason)


@pytest.fixture
def link():
    return MsgpackLink(Carrier())


@pytest.fixture
def completed(link):
    """The receiver of a command that is over, without an exit code."""
    receiver = Receiver()
    link.start(0, "1.0", "shell", {}, receiver).addErrback(lambda _: None)
    say(link, op="complete", command_id="1.0", args=None)
    assert receiver.heard == ["completed"]
    return receiver


def say(link, **message):
    link.came(msgpack.packb({"seq_number": 7, **message}))


def test_an_exit_code_that_comes_late(link, completed):
    """It is heard."""
    say(link, op="update", command_id="1.0", args=[["rc", 3]])
    assert completed.heard == ["completed", ("rc", 3)]


def test_a_connection_that_is_lost_before_the_exit_code(link, completed):
    """Who waits for the exit code hears of the loss at once."""
    link.lost("gone")
    assert completed.heard == ["completed", "gone"]


def test_the_next_command_of_the_same_slot(link, completed):
    """What comes from now on is the next one's."""
    following = Receiver()
    link.start(0, "1.0", "shell", {}, following).addErrback(lambda _: None)
    say(link, op="update", command_id="1.0", args=[["rc", 0]])
    assert completed.heard == ["completed"]
    assert following.heard == [("rc", 0)]
