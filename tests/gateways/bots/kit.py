"""A whole controller in the test's reactor, and the calls of bots."""

import contextlib

import grpc
import pytest

from latent.model import BuildRequest, Payload, Requirements
from tests.gateways import site
from tests.gateways.bots.client import Wire, session_of
from tests.gateways.peer_fakes import twisted

MASTER = """
from latent.plugins import util, worker
from tests.gateways.bots.cloud import CloudWorker

c["workers"] = [
    worker.Worker("plain", "plain-password"),
    worker.Worker("second", "second-password"),
    worker.Worker("wide", "wide-password", max_builds=3),
    worker.Worker("apart", "apart-password", labels={"agent": "bot", "instance": "other"}),
    CloudWorker("cloud", labels={"agent": "bot", "!cloud": "yes"}, build_wait_timeout=0),
    CloudWorker("lasting", labels={"agent": "bot", "!lasting": "yes"}),
    CloudWorker("steps", labels={"steps": "yes"}),
]
c["builders"] = [util.Builder("b", ["true"], labels={"steps": "yes"})]
c["protocols"] = {"bots": {"instances": ["", "other"], "keep_alive": 20}}
"""

TYPE = "type.googleapis.com/some.Work"


class Site(site.Site):
    """A controller with plain and latent workers, and what tests ask of its builds."""

    def __init__(self, folder, master=MASTER):
        super().__init__(folder, master)

    @property
    def port(self):
        return self.assembly.port("bots")

    @property
    def bots(self):
        """The interface of the instance without a name."""
        return self.gateway.instances[""]

    @property
    def gateway(self):
        return self.assembly._gateways["bots"]

    def plugin(self, name):
        return self.controller.roster.get(name).plugin

    # --- builds

    async def submit(self, value=b"work", *, type_url=TYPE, labels=None, workers=None, **more):
        needs = Requirements(labels=labels or {}, workers=workers and frozenset(workers))
        request = BuildRequest(builder="b", payload=Payload(type_url, value), requirements=needs, **more)
        return await twisted(self.controller.submit(request))

    async def build(self, build):
        return (await twisted(self.controller.build(build.id))).build

    async def finished(self, build):
        return await twisted(self.controller.when_finished(build.id))

    async def runs(self, build):
        return (await twisted(self.controller.build(build.id))).runs

    async def answer(self, build):
        found = await twisted(self.controller.answer(build.id))
        return found and found[1]

    async def cancel(self, build):
        await twisted(self.controller.cancel(build.id, "not wanted"))


class Stepped:
    """A bot that is taken call by call. ``session`` is what it says next; an answer's leases are what it then has."""

    def __init__(self, site, *, bot_id="plain:plain-password", token=None, instance="", **about):
        self.wire = Wire(site.port, token, instance)
        self.session = session_of(bot_id, **about)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *args):
        await self.wire.close()

    async def create(self, timeout=1):
        return self.heard(await self.wire.create(self.session, timeout))

    async def update(self, *leases, timeout=1):
        """``timeout`` 1: too short for waiting. ``leases``: instead of those of the last answer."""
        if leases:
            del self.session.leases[:]
            self.session.leases.extend(leases)
        return self.heard(await self.wire.update(self.session, timeout))

    def heard(self, answer):
        self.session.name = answer.name
        del self.session.leases[:]
        self.session.leases.extend(answer.leases)
        return answer

    @property
    def lease(self):
        (lease,) = self.session.leases
        return lease

    def say(self, state, code=0, message="", result=None):
        """Say this of the one lease that it has, in its next call."""
        self.lease.state = state
        self.lease.status.code, self.lease.status.message = code, message
        if result is not None:
            self.lease.result.type_url, self.lease.result.value = result
        return self


@contextlib.contextmanager
def refused(code, text=""):
    """The call is refused with this status; yields a list that has the error afterwards."""
    found = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield found
    found.append(caught.value)
    assert caught.value.code() is code, caught.value
    assert text in caught.value.details()
