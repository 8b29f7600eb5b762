"""The wire as specs/peer.md describes it, and a client made from that alone: nothing here comes from our own protocol file."""

import re

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

MESSAGES = """
Empty
StepState step_uuid=1 started=2(int64) finished=3(int64) exited=4(bool) exit_code=5(int32) error=6 canceled=7(bool) \
skipped=8(bool)
WorkflowState started=1(int64) finished=2(int64) error=3 canceled=4(bool)
LogEntry step_uuid=1 time=2(int64) line=3(int32) type=4(int32) data=5(bytes)
Filter labels=1(map)
Workflow id=1 timeout=2(int64) payload=3(bytes)
NextRequest filter=1(Filter)
NextResponse workflow=1(Workflow)
InitRequest id=1 state=2(WorkflowState)
DoneRequest id=1 state=2(WorkflowState)
UpdateRequest id=1 state=2(StepState)
WaitRequest id=1
WaitResponse canceled=1(bool)
ExtendRequest id=1
LogRequest logEntries=1(LogEntry*)
ReportHealthRequest status=1
AgentInfo platform=1 capacity=2(int32) backend=3 version=4 customLabels=5(map)
RegisterAgentRequest info=1(AgentInfo)
RegisterAgentResponse agent_id=1(int64)
VersionResponse grpc_version=1(int32) server_version=2
AuthRequest agent_token=1 agent_id=2(int64)
AuthResponse status=1 agent_id=2(int64) access_token=3
"""

CALLS = """
WoodpeckerAuth/Auth AuthRequest AuthResponse
Woodpecker/Version Empty VersionResponse
Woodpecker/Next NextRequest NextResponse
Woodpecker/Init InitRequest Empty
Woodpecker/Wait WaitRequest WaitResponse
Woodpecker/Done DoneRequest Empty
Woodpecker/Extend ExtendRequest Empty
Woodpecker/Update UpdateRequest Empty
Woodpecker/Log LogRequest Empty
Woodpecker/RegisterAgent RegisterAgentRequest RegisterAgentResponse
Woodpecker/UnregisterAgent Empty Empty
Woodpecker/ReportHealth ReportHealthRequest Empty
"""

Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "": Field.TYPE_STRING,
    "int64": Field.TYPE_INT64,
    "int32": Field.TYPE_INT32,
    "bool": Field.TYPE_BOOL,
    "bytes": Field.TYPE_BYTES,
}


def _add_field(message, name, number, kind):
    repeated, kind = kind.endswith("*"), kind.removesuffix("*")
    field = message.field.add(name=name, number=int(number), label=Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL)
    if kind in SCALARS:
        field.type = SCALARS[kind]
    elif kind == "map":
        entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
        entry.options.map_entry = True
        for number, part in enumerate(("key", "value"), 1):
            entry.field.add(name=part, number=number, label=Field.LABEL_OPTIONAL, type=Field.TYPE_STRING)
        field.label, field.type = Field.LABEL_REPEATED, Field.TYPE_MESSAGE
        field.type_name = f".proto.{message.name}.{entry.name}"
    else:
        field.type, field.type_name = Field.TYPE_MESSAGE, f".proto.{kind}"


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="described.proto", package="proto", syntax="proto3")
    for line in MESSAGES.split("\n"):
        if line:
            name, *fields = line.split()
            message = file.message_type.add(name=name)
            for field in fields:
                _add_field(message, *re.fullmatch(r"(\w+)=(\d+)(?:\((.*)\))?", field).groups(""))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"proto.{message.name}"))
        for message in file.message_type
    }


TYPES = _classes()
METHODS = {
    path.split("/")[1]: (f"/proto.{path}", TYPES[request], TYPES[response])
    for path, request, response in (line.split() for line in CALLS.split("\n") if line)
}


def message(name, document):
    """A message from the JSON form of protobuf; bytes are base64 there."""
    return json_format.ParseDict(document, TYPES[name]())


def document(found):
    """The other way round; fields that are not set have their zero."""
    return json_format.MessageToDict(found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


class Wire:
    """Two connections, as a stock agent has them: one for Auth, one for the rest."""

    def __init__(self, place):
        """``place``: a port of this machine, or host:port."""
        address = f"127.0.0.1:{place}" if isinstance(place, int) else place
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = {
            service: grpc.aio.insecure_channel(address, options=options) for service in ("Woodpecker", "WoodpeckerAuth")
        }

    def call(self, name, request, metadata=(), timeout=30):
        """``request`` in JSON form; what is awaited answers with a message."""
        path, kind, answer = METHODS[name]
        channel = self._channels[path.split("/")[1].removeprefix("proto.")]
        send = channel.unary_unary(path, request_serializer=kind.SerializeToString, response_deserializer=answer.FromString)
        return send(json_format.ParseDict(request, kind()), metadata=tuple(metadata), wait_for_ready=True, timeout=timeout)

    async def close(self):
        for channel in self._channels.values():
            await channel.close()
