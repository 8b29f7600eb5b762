"""An agent of the peer protocol that has lost its mind: calls in any order, with anything in them, cut short or too long."""

import asyncio

import grpc
import grpc.aio

from tests.gateways.woodpecker.wire import METHODS, TYPES

BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
"""Statuses that say that the gateway did not know what to do."""

PARKED = ("Next", "Wait")
PATIENCE = 30.0
"""Seconds; a call that is not answered then hangs."""

TOO_MUCH = 4 * 1024 * 1024 + 1


class PeerFuzzer:
    """``password``: a plain worker's. ``broken``: what went wrong, for people; empty when all is well."""

    def __init__(self, port, password, noise):
        self.frames = 0
        self.statuses = {}
        self.broken = []
        self._password = password
        self._noise = noise
        self._tokens = []
        self._runs = []
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._calls = {
            name: self._channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
            for name, (path, _, _) in METHODS.items()
        }

    async def close(self):
        await self._channel.close()

    async def play(self, frames, abreast=8):
        """So many calls, a few at a time."""
        left = iter(range(frames))

        async def some():
            for _ in left:
                await self.frame()

        await asyncio.gather(*(some() for _ in range(abreast)))

    async def frame(self):
        noise = self._noise
        self.frames += 1
        name = noise.pick(*METHODS) if noise.chance(0.5) else noise.pick("Next", "Init", "Update", "Log", "Done")
        if name == "Auth" and self._tokens and noise.chance(0.9):
            name = "Extend"  # else there would be more sessions than anything
        request = self._request(name)
        data = request.SerializeToString()
        if noise.chance(0.25):
            data = noise.damaged(data)
        if noise.chance(0.00005):
            data = b"\x0a" + b"\xff" * TOO_MUCH
        parked = name in PARKED
        timeout = noise.pick(0.001, 0.02, 0.1) if parked or noise.chance(0.02) else PATIENCE
        try:
            call = self._calls[name](data, metadata=self._metadata(name), timeout=timeout)
            if noise.chance(0.01):
                await asyncio.sleep(0)
                call.cancel()
            answer = await call
        except grpc.aio.AioRpcError as error:
            self._count(error.code().name)
            if error.code() in BROKEN or (error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and timeout == PATIENCE):
                self.broken.append(f"{name} {data[:500].hex()}: {error.code().name} {error.details()}")
        except asyncio.CancelledError:
            self._count("given up")
        else:
            self._count("OK")
            self._learn(name, answer)

    def _count(self, status):
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def _learn(self, name, answer):
        document = METHODS[name][2].FromString(answer)
        if name == "Auth":
            self._tokens = [*self._tokens[-3:], document.access_token]
        elif name == "Next" and document.HasField("workflow"):
            run = document.workflow.id
            self._runs = [*self._runs[-5:], run]
            self._noise.learn(run, f"{run}.0", f"{run}.1")

    def _metadata(self, name):
        noise = self._noise
        if name == "Auth":
            return ()
        found = [("hostname", noise.pick("host", "fuzz-peer", "x" * 100))]
        if self._tokens and noise.chance(0.95):
            found.append(("token", noise.random.choice(self._tokens)))
        elif noise.chance(0.5):
            found.append(("token", "".join(filter(str.isascii, noise.text())).strip("\0").replace("\0", "") or "x"))
        if noise.chance(0.1):
            found.append(("proto-version", noise.pick("16", "12", "-1", "sixteen", "9" * 40)))
        if name == "Done" and noise.chance(0.3):
            found += [
                ("latent-result", noise.pick("success", "timeout", "nothing", "")),
                ("latent-exit-code", noise.pick("0", "x", "1")),
            ]
        if noise.chance(0.02):
            found.append(("x-bin", noise.data(100)))
        return tuple((key, value) for key, value in found if not isinstance(value, str) or value.isprintable())

    # --- requests ------------------------------------------------------------------------------------------------------------

    def _request(self, name):
        request = METHODS[name][1]()
        if name == "Auth" and self._noise.chance(0.8):
            return TYPES["AuthRequest"](agent_token=self._password, agent_id=self._noise.pick(-1, -1, 1, 2, 2**40))
        if name == "ReportHealth" and self._noise.chance(0.7):
            return TYPES["ReportHealthRequest"](status="I am alive!")
        if name == "RegisterAgent" and self._noise.chance(0.5):
            request.info.capacity = self._noise.pick(1, 3, 0, -1)
            return request
        self._fill(request)
        return request

    def _fill(self, message):
        for field in message.DESCRIPTOR.fields:
            if self._noise.chance(0.2):
                continue
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                for _ in range(self._noise.random.randrange(4)):
                    getattr(message, field.name)[self._noise.text()] = self._noise.text()
            elif field.label == field.LABEL_REPEATED:
                for _ in range(self._noise.random.randrange(5)):
                    self._fill(getattr(message, field.name).add())
            elif field.message_type is not None:
                getattr(message, field.name).SetInParent()
                self._fill(getattr(message, field.name))
            else:
                setattr(message, field.name, self._scalar(message, field))

    def _scalar(self, message, field):
        noise = self._noise
        if self._runs and noise.chance(0.7):
            run = noise.random.choice(self._runs)
            if field.name == "id":
                return run
            if field.name == "step_uuid":
                return f"{run}.{noise.pick(0, 0, 1, 7)}"
        match field.type:
            case field.TYPE_STRING:
                return noise.text()
            case field.TYPE_BYTES:
                return noise.data()
            case field.TYPE_BOOL:
                return noise.chance(0.5)
            case field.TYPE_INT32:
                return noise.number(2**31)
            case _:
                return noise.number()
