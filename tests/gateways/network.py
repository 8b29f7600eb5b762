"""A network that can be cut: agents are given its port, and it passes on what they say."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone


class Network:
    """``port``: where agents dial. ``target``: a function that says which port it leads to just now."""

    def __init__(self, target):
        self.target = target
        self.wires = set()
        self.made = 0
        self.frozen = False
        self.closed = []

    async def __aenter__(self):
        from twisted.internet import reactor

        self.reactor = reactor
        self.listening = reactor.listenTCP(0, Factory.forProtocol(lambda: Near(self)), interface="127.0.0.1")
        self.port = self.listening.getHost().port
        return self

    async def __aexit__(self, *error):
        await self.listening.stopListening()
        self.cut()
        if self.wires:
            waiter = Deferred()
            self.closed.append(waiter)
            await waiter

    def cut(self):
        """Both ends lose their connections."""
        for wire in list(self.wires):
            wire.transport.abortConnection()

    def freeze(self):
        """Nothing passes any more and nobody is told; new connections work."""
        for wire in self.wires:
            wire.frozen = True
            wire.transport.pauseProducing()

    def gone(self, wire):
        self.wires.discard(wire)
        if not self.wires:
            for waiter in self.closed:
                waiter.callback(None)
            self.closed = []


class Wire(Protocol):
    def __init__(self, network):
        self.network = network
        self.other = None
        self.frozen = False
        self.waiting = []

    def connectionMade(self):
        self.network.wires.add(self)

    def dataReceived(self, data):
        if self.frozen:
            return
        if self.other is None:
            self.waiting.append(data)
        else:
            self.other.transport.write(data)

    def connectionLost(self, reason=connectionDone):
        self.network.gone(self)
        if self.other is not None and not self.frozen:
            self.other.transport.abortConnection()


class Near(Wire):
    def connectionMade(self):
        super().connectionMade()
        self.network.made += 1
        far = Far(self.network)
        far.near = self
        self.network.reactor.connectTCP("127.0.0.1", self.network.target(), Once(far))


class Far(Wire):
    def connectionMade(self):
        super().connectionMade()
        near = self.near
        self.other, near.other = near, self
        if near not in self.network.wires:  # it was cut before it got through
            self.transport.abortConnection()
        for data in near.waiting:
            self.transport.write(data)


class Once(Factory):
    noisy = False

    def __init__(self, protocol):
        self.made = protocol

    def buildProtocol(self, addr):
        return self.made

    def startedConnecting(self, connector):
        pass

    def clientConnectionFailed(self, connector, reason):
        self.made.near.transport.abortConnection()

    def clientConnectionLost(self, connector, reason):
        pass
