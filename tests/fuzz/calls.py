"""What fuzzers of gRPC services have in common: how calls are made and counted, and messages with anything in them."""

import asyncio

import grpc
import grpc.aio

BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
"""Statuses that say that the gateway did not know what to do."""

PATIENCE = 60.0
"""Seconds; a call that is not answered then hangs."""

TOO_MUCH = 4 * 1024 * 1024 + 1


class CallFuzzer:
    """``broken``: what went wrong, for people; empty when all is well. ``statuses``: how often which. ``oversized``: calls
    that were too large, and refused for it. ``waits``: seconds that a call which may be parked has."""

    waits = (0.001, 0.02, 0.05)

    def __init__(self, port, noise):
        self.frames = 0
        self.statuses = {}
        self.oversized = 0
        self.broken = []
        self.noise = noise
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._methods = {}

    def next(self):
        """(path, request, metadata, whether it may be parked) of the next call."""
        raise NotImplementedError

    def learn(self, path, answer):
        """Something was answered: bytes."""

    def refused(self, path, status):
        """Something was refused."""

    async def close(self):
        await self._channel.close()

    async def play(self, frames, abreast=8):
        """So many calls, a few at a time."""
        left = iter(range(frames))

        async def some():
            for _ in left:
                await self._frame()

        await asyncio.gather(*(some() for _ in range(abreast)))

    async def _frame(self):
        noise = self.noise
        self.frames += 1
        path, request, metadata, parks = self.next()
        data = request.SerializeToString()
        if noise.chance(0.25):
            data = noise.damaged(data)
        too_much = noise.chance(0.0001)
        if too_much:
            data = b"\x0a" + b"\xff" * TOO_MUCH
        timeout = noise.pick(*self.waits) if not too_much and (parks or noise.chance(0.02)) else PATIENCE
        try:
            call = self._method(path)(data, metadata=_sendable(metadata), timeout=timeout)
            if not too_much and noise.chance(0.01):
                await asyncio.sleep(0)
                call.cancel()
            answer = await call
        except grpc.aio.AioRpcError as error:
            self._count(error.code().name)
            self.refused(path, error.code())
            hangs = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and timeout == PATIENCE
            if too_much and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.oversized += 1
            elif error.code() in BROKEN or hangs or too_much:
                self.broken.append(f"{path} {data[:500].hex()}: {error.code().name} {error.details()}")
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            self._count("given up")
        else:
            self._count("OK")
            if too_much:
                self.broken.append(f"{path}: {len(data)} bytes are not too much")
            self.learn(path, answer)

    def _method(self, path):
        if path not in self._methods:
            self._methods[path] = self._channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
        return self._methods[path]

    def _count(self, status):
        self.statuses[status] = self.statuses.get(status, 0) + 1

    # --- messages ------------------------------------------------------------------------------------------------------------

    def fill(self, message, depth=5):
        """Most fields, with anything in them."""
        noise = self.noise
        for field in message.DESCRIPTOR.fields:
            if noise.chance(0.2):
                continue
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                for _ in range(noise.random.randrange(4)):
                    getattr(message, field.name)[noise.text()] = noise.text()
            elif field.label == field.LABEL_REPEATED:
                for _ in range(noise.random.randrange(5) if depth else 0):
                    if field.message_type is not None:
                        self.fill(getattr(message, field.name).add(), depth - 1)
                    else:
                        getattr(message, field.name).append(self.scalar(field))
            elif field.message_type is not None:
                getattr(message, field.name).SetInParent()
                if depth:
                    self.fill(getattr(message, field.name), depth - 1)
            else:
                setattr(message, field.name, self.scalar(field))

    def scalar(self, field):
        noise = self.noise
        match field.type:
            case field.TYPE_STRING:
                return noise.text()
            case field.TYPE_BYTES:
                return noise.data()
            case field.TYPE_BOOL:
                return noise.chance(0.5)
            case field.TYPE_INT32 | field.TYPE_ENUM:
                return noise.number(2**31)
            case _:
                return noise.number()


def _sendable(metadata):
    """Less what gRPC itself refuses to send."""
    return tuple(
        (key, value)
        for key, value in metadata
        if key.endswith("-bin") or (isinstance(value, str) and value.isascii() and value.isprintable() and value)
    )
