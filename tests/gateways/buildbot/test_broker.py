"""A connection that is lost while its agent is asked: all who wait for an answer hear of it, and so does the listener."""

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.spread import pb

from latent.gateways.buildbot.broker import BrokerFactory
from latent.gateways.buildbot.listener import Listener
from tests.gateways.buildbot.raw import HELLO


def broker():
    listener = Listener(door=None, clock=Clock(), interval=10.0)
    made = BrokerFactory(listener, login=None).buildProtocol(None)
    made.makeConnection(StringTransport())
    made.dataReceived(HELLO)
    return made, listener


def test_who_asks_again_when_the_connection_is_lost():
    """It is told at once; the others that wait are told too, and the connection is over."""
    made, listener = broker()
    agent = pb.RemoteReference(None, made, 1, 0)
    told = []

    def failed(failure):
        told.append(failure.type)
        # As one does that clears up after a command that failed.
        try:
            agent.callRemote("clear")
        except pb.DeadReferenceError:
            told.append("gone")

    for _ in range(3):
        agent.callRemote("work").addErrback(failed)
    made.connectionLost()
    assert told == [pb.PBConnectionLost, "gone"] * 3
    assert listener.stop().called


def test_a_loss_that_cannot_be_dealt_with():
    """The listener that stops does not wait for that connection for ever."""
    made, listener = broker()
    made.lost = {}.__getitem__
    with pytest.raises(KeyError):
        made.connectionLost()
    assert listener.stop().called
