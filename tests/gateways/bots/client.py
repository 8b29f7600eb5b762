"""A bot, written from the description of the wire alone (specs/bots.md): nothing of the gateway or its messages is in here.

`Wire` has the calls one by one. `Bot` is a whole bot: it attaches, takes leases, works and reports as stock bots do.
"""

import asyncio

import grpc
import grpc.aio
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, message_factory, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool

BOTS = "google.devtools.remoteworkers.v1test2"
EXECUTION = "build.bazel.remote.execution.v2"

UNSPECIFIED, OK, UNHEALTHY, HOST_REBOOTING, BOT_TERMINATING = range(5)
PENDING, ACTIVE, COMPLETED, CANCELLED = 1, 2, 4, 5

WIRE = {
    "Pair": "1 key s, 2 value s",
    "Device": "1 handle s, 2 properties *Pair",
    "Worker": "1 devices *Device, 2 properties *Pair, 3 configs *Pair",
    "Status": "1 code i, 2 message s, 3 details *.google.protobuf.Any",
    "Lease": "1 assignment s, 2 state i, 3 status Status, 4 requirements Worker, 5 expire_time .google.protobuf.Timestamp,"
    " 6 inline_assignment .google.protobuf.Any, 7 id s, 8 payload .google.protobuf.Any, 9 result .google.protobuf.Any",
    "BotSession": "1 name s, 2 bot_id s, 3 status i, 4 worker Worker, 5 leases *Lease,"
    " 6 expire_time .google.protobuf.Timestamp, 7 version s",
    "CreateBotSessionRequest": "1 parent s, 2 bot_session BotSession",
    "UpdateBotSessionRequest": "1 name s, 2 bot_session BotSession",
    "PostBotEventTempRequest": "1 name s, 2 type i, 3 msg s",
    "RetryInfo": "1 retry_delay .google.protobuf.Duration",
    "GetCapabilitiesRequest": "1 instance_name s",
    "SemVer": "1 major i, 2 minor i",
    "Execution": "1 digest_function i, 2 exec_enabled b",
    "ServerCapabilities": "2 execution Execution, 4 low SemVer, 5 high SemVer",
    "Digest": "1 hash s, 2 size_bytes l",
    "ExecuteOperationMetadata": "1 stage i, 2 action_digest Digest",
    "ActionResult": "4 exit_code i, 5 stdout_raw y",
}
"""Messages as "number name type": s string, y bytes, i int32 or an enum, l int64, b bool, else a message; * is repeated."""

_TYPES = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "s": _TYPES.TYPE_STRING,
    "y": _TYPES.TYPE_BYTES,
    "i": _TYPES.TYPE_INT32,
    "l": _TYPES.TYPE_INT64,
    "b": _TYPES.TYPE_BOOL,
}


def _messages():
    pool = DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="a_bots_own.proto", package="abot", syntax="proto3")
    for known in (any_pb2, duration_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        file.dependency.append(known.DESCRIPTOR.name)
    for name, fields in WIRE.items():
        message = file.message_type.add(name=name)
        for entry in fields.split(", ") if ", " in fields else [fields]:
            number, field, kind = entry.split()
            repeated = kind.startswith("*")
            kind = kind.lstrip("*")
            added = message.field.add(
                name=field,
                number=int(number),
                label=_TYPES.LABEL_REPEATED if repeated else _TYPES.LABEL_OPTIONAL,
                type=_SCALARS.get(kind, _TYPES.TYPE_MESSAGE),
            )
            if kind not in _SCALARS:
                added.type_name = kind if kind.startswith(".") else f".abot.{kind}"
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"abot.{name}")) for name in WIRE}


M = _messages()


class Wire:
    """The calls, one by one. ``place``: a port of this machine, or host:port. ``token``: sent as access token if there is one."""

    def __init__(self, place, token=None, instance="", credentials=None):
        self.instance = instance
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        address = f"127.0.0.1:{place}" if isinstance(place, int) else place
        options = (("grpc.use_local_subchannel_pool", 1),)
        self.channel = (
            grpc.aio.insecure_channel(address, options=options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=options)
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *args):
        await self.close()

    async def close(self):
        await self.channel.close()

    def call(self, service, name, answer, request, timeout=None):
        method = self.channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=M[answer].FromString,
        )
        return method(request, metadata=self.metadata, timeout=timeout)

    def create(self, session, timeout=None, parent=None):
        request = M["CreateBotSessionRequest"](parent=self.instance if parent is None else parent, bot_session=session)
        return self.call(f"{BOTS}.Bots", "CreateBotSession", "BotSession", request, timeout)

    def update(self, session, timeout=None, name=None):
        request = M["UpdateBotSessionRequest"](name=session.name if name is None else name, bot_session=session)
        return self.call(f"{BOTS}.Bots", "UpdateBotSession", "BotSession", request, timeout)

    def post_event(self, **fields):
        request = M["PostBotEventTempRequest"](**fields)
        return self.call(f"{BOTS}.Bots", "PostBotEventTemp", "Status", request)

    def capabilities(self, instance=None):
        request = M["GetCapabilitiesRequest"](instance_name=self.instance if instance is None else instance)
        return self.call(f"{EXECUTION}.Capabilities", "GetCapabilities", "ServerCapabilities", request)


def session_of(bot_id="bot", status=OK, capacity=None, leases=(), **properties):
    """A bot session as a bot says it. A property's value is a text or a list of them."""
    session = M["BotSession"](bot_id=bot_id, status=status, version="test")
    device = session.worker.devices.add(handle="host")
    for key, values in properties.items():
        for value in [values] if isinstance(values, str) else values:
            device.properties.add(key=key, value=value)
    if capacity is not None:
        session.worker.configs.add(key="capacity", value=str(capacity))
    for lease in leases:
        session.leases.add().CopyFrom(lease)
    return session


def lease_of(id, state=PENDING, code=0, message=""):
    lease = M["Lease"](id=id, state=state)
    if code:
        lease.status.code, lease.status.message = code, message
    return lease


class Bot:
    """A whole bot. ``work(lease)`` is awaited for each lease and answers its result: (type_url, value), or a status code.

    As stock bots do: it asks for capabilities, creates its session without saying how it is, acknowledges what it gets at once,
    begins when that call has ended, ends its own call in order to report what it has done, echoes what was cancelled, and
    leaves when it is told of a loss.
    """

    def __init__(self, place, work, *, bot_id="bot", token=None, instance="", capacity=None, deadline=None, **properties):
        self.wire = Wire(place, token, instance)
        self.session = session_of(bot_id, UNSPECIFIED, capacity, **properties)
        self.work = work
        self.deadline = deadline
        self.done = []
        self.attached = asyncio.Event()
        self.ended = ""
        self._works = {}
        self._call = None
        self._news = asyncio.Event()
        self._life = None

    async def __aenter__(self):
        self._life = asyncio.ensure_future(self._live())
        return self

    async def __aexit__(self, *args):
        await self.die()

    async def gone(self):
        """Until it has left by itself: it was told that its session is lost, or it was refused (raises AioRpcError)."""
        await asyncio.shield(self._life)

    async def die(self):
        """The bot is gone without a word."""
        for task in [self._life, *self._works.values()]:
            task.cancel()
        await asyncio.gather(self._life, *self._works.values(), return_exceptions=True)
        await self.wire.close()

    async def terminate(self):
        """SIGTERM: it says so, and goes."""
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        self.session.status = BOT_TERMINATING
        await self.wire.update(self.session)
        await self.die()

    async def _live(self):
        await self._patiently(self.wire.capabilities)
        answer = await self._patiently(lambda: self.wire.create(self.session))
        self.session.name = answer.name
        self.attached.set()
        self.session.status = OK
        while True:
            self._news.clear()
            self._call = self.wire.update(self.session, self.deadline)
            news = asyncio.ensure_future(self._news.wait())
            answered = asyncio.ensure_future(self._answer(self._call))
            try:
                await asyncio.wait({news, answered}, return_when=asyncio.FIRST_COMPLETED)
                if not answered.done():
                    self._call.cancel()
                answer = await answered
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DATA_LOSS or error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    self.ended = error.details()
                    return
                await asyncio.sleep(0.05)
                continue
            finally:
                news.cancel()
                answered.cancel()
            if answer is not None:
                self._take(answer)
            self._begin()

    async def _answer(self, call):
        try:
            return await call
        except asyncio.CancelledError:
            if call.cancelled() and not asyncio.current_task().cancelling():
                return None
            raise

    async def _patiently(self, call):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.ended = error.details()
                    raise
                await asyncio.sleep(0.05)

    def _take(self, answer):
        mine = {lease.id: lease for lease in self.session.leases}
        del self.session.leases[:]
        for lease in answer.leases:
            if lease.state == PENDING:
                self.session.leases.add().CopyFrom(lease)
            elif lease.state == CANCELLED:
                if lease.id in self._works:
                    self._works.pop(lease.id).cancel()
                echo = self.session.leases.add()
                echo.CopyFrom(lease)
                echo.status.code = 1
                self._news.set()
            else:
                known = mine.get(lease.id, lease)
                self.session.leases.add().CopyFrom(known)
                if known.state == COMPLETED:
                    self._news.set()
        for lease in mine.values():
            if lease.state == COMPLETED and lease.id not in {one.id for one in answer.leases}:
                self._works.pop(lease.id, None)

    def _begin(self):
        for lease in self.session.leases:
            if lease.state == PENDING:
                lease.state = ACTIVE
                self._news.set()
            elif lease.state == ACTIVE and lease.id not in self._works:
                self._works[lease.id] = asyncio.ensure_future(self._carry_out(lease))

    async def _carry_out(self, lease):
        result = await self.work(lease)
        for mine in self.session.leases:
            if mine.id == lease.id and mine.state == ACTIVE:
                mine.state = COMPLETED
                if isinstance(result, int):
                    mine.status.code = result
                else:
                    mine.result.type_url, mine.result.value = result
                self.done.append(lease.id)
                self._news.set()
