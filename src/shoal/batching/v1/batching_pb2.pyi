from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BULK: _ClassVar[Priority]
PRIORITY_INTERACTIVE: Priority
PRIORITY_BULK: Priority

class ServedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServedReply(_message.Message):
    __slots__ = ("ready", "models", "origin", "described")
    READY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    DESCRIBED_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    models: _containers.RepeatedScalarFieldContainer[str]
    origin: str
    described: _containers.RepeatedCompositeFieldContainer[ServedModel]
    def __init__(self, ready: _Optional[bool] = ..., models: _Optional[_Iterable[str]] = ..., origin: _Optional[str] = ..., described: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("name", "task", "versions", "labels")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    task: str
    versions: _containers.RepeatedScalarFieldContainer[int]
    labels: int
    def __init__(self, name: _Optional[str] = ..., task: _Optional[str] = ..., versions: _Optional[_Iterable[int]] = ..., labels: _Optional[int] = ...) -> None: ...

class BatchChunk(_message.Message):
    __slots__ = ("items", "last", "withdrawn")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[BatchItem]
    last: bool
    withdrawn: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, items: _Optional[_Iterable[_Union[BatchItem, _Mapping]]] = ..., last: _Optional[bool] = ..., withdrawn: _Optional[_Iterable[int]] = ...) -> None: ...

class BatchItem(_message.Message):
    __slots__ = ("index", "request", "owner", "timeout_us", "queued_us", "traceparent", "priority", "identity")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    QUEUED_US_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    index: int
    request: bytes
    owner: str
    timeout_us: int
    queued_us: int
    traceparent: str
    priority: Priority
    identity: str
    def __init__(self, index: _Optional[int] = ..., request: _Optional[bytes] = ..., owner: _Optional[str] = ..., timeout_us: _Optional[int] = ..., queued_us: _Optional[int] = ..., traceparent: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., identity: _Optional[str] = ...) -> None: ...

class BatchResultChunk(_message.Message):
    __slots__ = ("results", "permit", "engine_us", "early", "executed", "put_off")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PERMIT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_US_FIELD_NUMBER: _ClassVar[int]
    EARLY_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    PUT_OFF_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchItemResult]
    permit: bool
    engine_us: int
    early: bool
    executed: int
    put_off: int
    def __init__(self, results: _Optional[_Iterable[_Union[BatchItemResult, _Mapping]]] = ..., permit: _Optional[bool] = ..., engine_us: _Optional[int] = ..., early: _Optional[bool] = ..., executed: _Optional[int] = ..., put_off: _Optional[int] = ...) -> None: ...

class BatchItemResult(_message.Message):
    __slots__ = ("index", "code", "message", "response")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    index: int
    code: int
    message: str
    response: bytes
    def __init__(self, index: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., response: _Optional[bytes] = ...) -> None: ...
