from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImageRequest(_message.Message):
    __slots__ = ("api_key", "image_uuid", "model_name", "model_version", "top_k", "score_threshold")
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    api_key: str
    image_uuid: str
    model_name: str
    model_version: int
    top_k: int
    score_threshold: float
    def __init__(self, api_key: _Optional[str] = ..., image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., top_k: _Optional[int] = ..., score_threshold: _Optional[float] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_us", "fetch_us", "decode_us", "compute_us", "batch_size")
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    FETCH_US_FIELD_NUMBER: _ClassVar[int]
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    queue_us: int
    fetch_us: int
    decode_us: int
    compute_us: int
    batch_size: int
    def __init__(self, queue_us: _Optional[int] = ..., fetch_us: _Optional[int] = ..., decode_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., batch_size: _Optional[int] = ...) -> None: ...

class Class(_message.Message):
    __slots__ = ("index", "label", "probability")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    index: int
    label: str
    probability: float
    def __init__(self, index: _Optional[int] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class ClassifyReply(_message.Message):
    __slots__ = ("image_uuid", "model_name", "model_version", "classes", "timing")
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    model_name: str
    model_version: int
    classes: _containers.RepeatedCompositeFieldContainer[Class]
    timing: Timing
    def __init__(self, image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., classes: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height", "index", "label", "score")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    width: float
    height: float
    index: int
    label: str
    score: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ..., index: _Optional[int] = ..., label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class DetectReply(_message.Message):
    __slots__ = ("image_uuid", "model_name", "model_version", "boxes", "timing")
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    model_name: str
    model_version: int
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    timing: Timing
    def __init__(self, image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class SegmentReply(_message.Message):
    __slots__ = ("image_uuid", "model_name", "model_version", "mask_png", "labels", "timing")
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MASK_PNG_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    model_name: str
    model_version: int
    mask_png: bytes
    labels: _containers.RepeatedScalarFieldContainer[str]
    timing: Timing
    def __init__(self, image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., mask_png: _Optional[bytes] = ..., labels: _Optional[_Iterable[str]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class CreateUploadsRequest(_message.Message):
    __slots__ = ("api_key", "count")
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    api_key: str
    count: int
    def __init__(self, api_key: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Upload(_message.Message):
    __slots__ = ("image_uuid", "put_url")
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    PUT_URL_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    put_url: str
    def __init__(self, image_uuid: _Optional[str] = ..., put_url: _Optional[str] = ...) -> None: ...

class CreateUploadsReply(_message.Message):
    __slots__ = ("uploads", "expires_in_seconds", "max_bytes")
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    uploads: _containers.RepeatedCompositeFieldContainer[Upload]
    expires_in_seconds: int
    max_bytes: int
    def __init__(self, uploads: _Optional[_Iterable[_Union[Upload, _Mapping]]] = ..., expires_in_seconds: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...
