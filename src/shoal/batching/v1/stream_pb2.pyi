from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallChunk(_message.Message):
    __slots__ = ("calls", "withdrawn")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[CallItem]
    withdrawn: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, calls: _Optional[_Iterable[_Union[CallItem, _Mapping]]] = ..., withdrawn: _Optional[_Iterable[int]] = ...) -> None: ...

class CallItem(_message.Message):
    __slots__ = ("index", "request", "timeout_us", "traceparent", "affinity")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_FIELD_NUMBER: _ClassVar[int]
    index: int
    request: bytes
    timeout_us: int
    traceparent: str
    affinity: str
    def __init__(self, index: _Optional[int] = ..., request: _Optional[bytes] = ..., timeout_us: _Optional[int] = ..., traceparent: _Optional[str] = ..., affinity: _Optional[str] = ...) -> None: ...

class CallResultChunk(_message.Message):
    __slots__ = ("results", "draining")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[CallItemResult]
    draining: bool
    def __init__(self, results: _Optional[_Iterable[_Union[CallItemResult, _Mapping]]] = ..., draining: _Optional[bool] = ...) -> None: ...

class CallItemResult(_message.Message):
    __slots__ = ("index", "code", "message", "response", "retry_after_us")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_US_FIELD_NUMBER: _ClassVar[int]
    index: int
    code: int
    message: str
    response: bytes
    retry_after_us: int
    def __init__(self, index: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., response: _Optional[bytes] = ..., retry_after_us: _Optional[int] = ...) -> None: ...
