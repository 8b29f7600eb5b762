"""A stock Woodpecker agent's side of the wire: generated stubs, its metadata, and the order in which it calls."""

import time

import grpc
import grpc.aio
import pytest

from latent.wire import peer_pb2 as pb
from latent.wire import peer_pb2_grpc as stubs

Code = grpc.StatusCode


def refused(code, match=""):
    """The call inside is answered with ``code``."""
    return pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is code and match in error.details())


class StockAgent:
    """One agent with two connections, as the original has: one for Auth, one for the rest."""

    def __init__(self, port, token="one-time", agent_id=-1, version=16, hostname="host-1"):
        self.address = f"127.0.0.1:{port}"
        self.token = token
        self.agent_id = agent_id
        self.version = version
        self.hostname = hostname
        self.access = ""
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.auth_channel = grpc.aio.insecure_channel(self.address, options=options)
        self.channel = grpc.aio.insecure_channel(self.address, options=options)
        self.auth_stub = stubs.WoodpeckerAuthStub(self.auth_channel)
        self.stub = stubs.WoodpeckerStub(self.channel)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        await self.auth_channel.close()
        await self.channel.close()

    @property
    def metadata(self):
        found = [("token", self.access), ("hostname", self.hostname)]
        return found if self.version is None else [*found, ("proto-version", str(self.version))]

    def call(self, name, request, **options):
        return getattr(self.stub, name)(request, metadata=self.metadata, **options)

    async def auth(self):
        answer = await self.auth_stub.Auth(pb.AuthRequest(agent_token=self.token, agent_id=self.agent_id))
        self.access, self.agent_id = answer.access_token, answer.agent_id
        return answer

    async def register(self, capacity=1, labels=None):
        info = pb.AgentInfo(
            platform="linux/amd64", capacity=capacity, backend="local", version="3.17.0", customLabels=labels or {}
        )
        return await self.call("RegisterAgent", pb.RegisterAgentRequest(info=info))

    async def attach(self, **options):
        """Auth, Version, RegisterAgent."""
        await self.auth()
        version = await self.call("Version", pb.Empty())
        assert version.grpc_version == (self.version or 16)
        await self.register(**options)
        return self

    def next(self):
        labels = {"hostname": self.hostname, "platform": "linux/amd64", "backend": "local", "repo": "*"}
        return self.call("Next", pb.NextRequest(filter=pb.Filter(labels=labels)))

    def wait(self, run):
        return self.call("Wait", pb.WaitRequest(id=run))

    async def init(self, run, started=None, **state):
        self.started = int(time.time()) if started is None else started
        await self.call("Init", pb.InitRequest(id=run, state=pb.WorkflowState(started=self.started, **state)))

    async def update(self, run, uuid, **state):
        await self.call("Update", pb.UpdateRequest(id=run, state=pb.StepState(step_uuid=uuid, **state)))

    async def step(self, run, uuid, exit_code=0, error="", canceled=False):
        """A step as it is reported: begun (with nothing but its uuid), then ended."""
        await self.update(run, uuid)
        now = int(time.time())
        await self.update(run, uuid, started=now, finished=now, exited=True, exit_code=exit_code, error=error, canceled=canceled)

    async def log(self, uuid, *texts, first=0, **entry):
        entries = [
            pb.LogEntry(step_uuid=uuid, line=first + index, data=text if isinstance(text, bytes) else text.encode(), **entry)
            for index, text in enumerate(texts)
        ]
        await self.call("Log", pb.LogRequest(logEntries=entries))

    async def done(self, run, started=None, duration=0, **state):
        began = self.started if started is None else started
        finished = began + duration
        await self.call("Done", pb.DoneRequest(id=run, state=pb.WorkflowState(started=began, finished=finished, **state)))


def agent(gateway, *args, **kwargs):
    """A stock agent of ``gateway``."""
    return StockAgent(gateway.port, *args, **kwargs)


async def answer(call):
    """A call as a coroutine."""
    return await call
