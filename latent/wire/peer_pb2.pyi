# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StepState(_message.Message):
    __slots__ = ("step_uuid", "started", "finished", "exited", "exit_code", "error", "canceled", "skipped")
    STEP_UUID_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CANCELED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    step_uuid: str
    started: int
    finished: int
    exited: bool
    exit_code: int
    error: str
    canceled: bool
    skipped: bool
    def __init__(self, step_uuid: _Optional[str] = ..., started: _Optional[int] = ..., finished: _Optional[int] = ..., exited: bool = ..., exit_code: _Optional[int] = ..., error: _Optional[str] = ..., canceled: bool = ..., skipped: bool = ...) -> None: ...

class WorkflowState(_message.Message):
    __slots__ = ("started", "finished", "error", "canceled")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CANCELED_FIELD_NUMBER: _ClassVar[int]
    started: int
    finished: int
    error: str
    canceled: bool
    def __init__(self, started: _Optional[int] = ..., finished: _Optional[int] = ..., error: _Optional[str] = ..., canceled: bool = ...) -> None: ...

class LogEntry(_message.Message):
    __slots__ = ("step_uuid", "time", "line", "type", "data")
    STEP_UUID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    step_uuid: str
    time: int
    line: int
    type: int
    data: bytes
    def __init__(self, step_uuid: _Optional[str] = ..., time: _Optional[int] = ..., line: _Optional[int] = ..., type: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("labels",)
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.ScalarMap[str, str]
    def __init__(self, labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Workflow(_message.Message):
    __slots__ = ("id", "timeout", "payload")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    id: str
    timeout: int
    payload: bytes
    def __init__(self, id: _Optional[str] = ..., timeout: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class VersionResponse(_message.Message):
    __slots__ = ("grpc_version", "server_version")
    GRPC_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    grpc_version: int
    server_version: str
    def __init__(self, grpc_version: _Optional[int] = ..., server_version: _Optional[str] = ...) -> None: ...

class NextRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: Filter
    def __init__(self, filter: _Optional[_Union[Filter, _Mapping]] = ...) -> None: ...

class NextResponse(_message.Message):
    __slots__ = ("workflow",)
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    workflow: Workflow
    def __init__(self, workflow: _Optional[_Union[Workflow, _Mapping]] = ...) -> None: ...

class InitRequest(_message.Message):
    __slots__ = ("id", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: WorkflowState
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[WorkflowState, _Mapping]] = ...) -> None: ...

class WaitRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WaitResponse(_message.Message):
    __slots__ = ("canceled",)
    CANCELED_FIELD_NUMBER: _ClassVar[int]
    canceled: bool
    def __init__(self, canceled: bool = ...) -> None: ...

class DoneRequest(_message.Message):
    __slots__ = ("id", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: WorkflowState
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[WorkflowState, _Mapping]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("id", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: StepState
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[StepState, _Mapping]] = ...) -> None: ...

class LogRequest(_message.Message):
    __slots__ = ("logEntries",)
    LOGENTRIES_FIELD_NUMBER: _ClassVar[int]
    logEntries: _containers.RepeatedCompositeFieldContainer[LogEntry]
    def __init__(self, logEntries: _Optional[_Iterable[_Union[LogEntry, _Mapping]]] = ...) -> None: ...

class ReportHealthRequest(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: str
    def __init__(self, status: _Optional[str] = ...) -> None: ...

class AgentInfo(_message.Message):
    __slots__ = ("platform", "capacity", "backend", "version", "customLabels")
    class CustomLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CUSTOMLABELS_FIELD_NUMBER: _ClassVar[int]
    platform: str
    capacity: int
    backend: str
    version: str
    customLabels: _containers.ScalarMap[str, str]
    def __init__(self, platform: _Optional[str] = ..., capacity: _Optional[int] = ..., backend: _Optional[str] = ..., version: _Optional[str] = ..., customLabels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RegisterAgentRequest(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: AgentInfo
    def __init__(self, info: _Optional[_Union[AgentInfo, _Mapping]] = ...) -> None: ...

class RegisterAgentResponse(_message.Message):
    __slots__ = ("agent_id",)
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    agent_id: int
    def __init__(self, agent_id: _Optional[int] = ...) -> None: ...

class AuthRequest(_message.Message):
    __slots__ = ("agent_token", "agent_id")
    AGENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    agent_token: str
    agent_id: int
    def __init__(self, agent_token: _Optional[str] = ..., agent_id: _Optional[int] = ...) -> None: ...

class AuthResponse(_message.Message):
    __slots__ = ("status", "agent_id", "access_token")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    status: str
    agent_id: int
    access_token: str
    def __init__(self, status: _Optional[str] = ..., agent_id: _Optional[int] = ..., access_token: _Optional[str] = ...) -> None: ...
