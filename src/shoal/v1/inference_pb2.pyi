from shoal.batching.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MaskForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_FORM_PNG: _ClassVar[MaskForm]
    MASK_FORM_RUNS: _ClassVar[MaskForm]
    MASK_FORM_CLASS_MAP: _ClassVar[MaskForm]

class MaskSize(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_SIZE_MODEL: _ClassVar[MaskSize]
    MASK_SIZE_PICTURE: _ClassVar[MaskSize]
MASK_FORM_PNG: MaskForm
MASK_FORM_RUNS: MaskForm
MASK_FORM_CLASS_MAP: MaskForm
MASK_SIZE_MODEL: MaskSize
MASK_SIZE_PICTURE: MaskSize

class ImageRequest(_message.Message):
    __slots__ = ("api_key", "image_uuid", "model_name", "model_version", "top_k", "score_threshold", "mask_form", "mask_size", "region", "regions", "max_age_us")
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MASK_FORM_FIELD_NUMBER: _ClassVar[int]
    MASK_SIZE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_US_FIELD_NUMBER: _ClassVar[int]
    api_key: str
    image_uuid: str
    model_name: str
    model_version: int
    top_k: int
    score_threshold: float
    mask_form: MaskForm
    mask_size: MaskSize
    region: PictureRegion
    regions: _containers.RepeatedCompositeFieldContainer[PictureRegion]
    max_age_us: int
    def __init__(self, api_key: _Optional[str] = ..., image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., top_k: _Optional[int] = ..., score_threshold: _Optional[float] = ..., mask_form: _Optional[_Union[MaskForm, str]] = ..., mask_size: _Optional[_Union[MaskSize, str]] = ..., region: _Optional[_Union[PictureRegion, _Mapping]] = ..., regions: _Optional[_Iterable[_Union[PictureRegion, _Mapping]]] = ..., max_age_us: _Optional[int] = ...) -> None: ...

class PictureRegion(_message.Message):
    __slots__ = ("x", "y", "width", "height", "padding", "square")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    SQUARE_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    width: float
    height: float
    padding: float
    square: bool
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ..., padding: _Optional[float] = ..., square: _Optional[bool] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_us", "fetch_us", "decode_us", "compute_us", "batch_size", "cached")
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    FETCH_US_FIELD_NUMBER: _ClassVar[int]
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    queue_us: int
    fetch_us: int
    decode_us: int
    compute_us: int
    batch_size: int
    cached: bool
    def __init__(self, queue_us: _Optional[int] = ..., fetch_us: _Optional[int] = ..., decode_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., batch_size: _Optional[int] = ..., cached: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("image_uuid", "model_name", "model_version", "classes", "timing", "region_replies", "region")
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    REGION_REPLIES_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    model_name: str
    model_version: int
    classes: _containers.RepeatedCompositeFieldContainer[Class]
    timing: Timing
    region_replies: _containers.RepeatedCompositeFieldContainer[ClassifyRegionReply]
    region: PictureRegion
    def __init__(self, image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., classes: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., region_replies: _Optional[_Iterable[_Union[ClassifyRegionReply, _Mapping]]] = ..., region: _Optional[_Union[PictureRegion, _Mapping]] = ...) -> None: ...

class ClassifyRegionReply(_message.Message):
    __slots__ = ("code", "message", "reply")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reply: ClassifyReply
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reply: _Optional[_Union[ClassifyReply, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("image_uuid", "model_name", "model_version", "boxes", "timing", "region_replies", "region")
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    REGION_REPLIES_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    model_name: str
    model_version: int
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    timing: Timing
    region_replies: _containers.RepeatedCompositeFieldContainer[DetectRegionReply]
    region: PictureRegion
    def __init__(self, image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., region_replies: _Optional[_Iterable[_Union[DetectRegionReply, _Mapping]]] = ..., region: _Optional[_Union[PictureRegion, _Mapping]] = ...) -> None: ...

class DetectRegionReply(_message.Message):
    __slots__ = ("code", "message", "reply")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reply: DetectReply
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reply: _Optional[_Union[DetectReply, _Mapping]] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("index", "label", "pixels", "counts")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    index: int
    label: str
    pixels: int
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, index: _Optional[int] = ..., label: _Optional[str] = ..., pixels: _Optional[int] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class SegmentReply(_message.Message):
    __slots__ = ("image_uuid", "model_name", "model_version", "mask_png", "labels", "timing", "width", "height", "class_bytes", "regions", "class_map", "region_replies", "region")
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MASK_PNG_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CLASS_BYTES_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    CLASS_MAP_FIELD_NUMBER: _ClassVar[int]
    REGION_REPLIES_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    model_name: str
    model_version: int
    mask_png: bytes
    labels: _containers.RepeatedScalarFieldContainer[str]
    timing: Timing
    width: int
    height: int
    class_bytes: int
    regions: _containers.RepeatedCompositeFieldContainer[Region]
    class_map: bytes
    region_replies: _containers.RepeatedCompositeFieldContainer[SegmentRegionReply]
    region: PictureRegion
    def __init__(self, image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., mask_png: _Optional[bytes] = ..., labels: _Optional[_Iterable[str]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., class_bytes: _Optional[int] = ..., regions: _Optional[_Iterable[_Union[Region, _Mapping]]] = ..., class_map: _Optional[bytes] = ..., region_replies: _Optional[_Iterable[_Union[SegmentRegionReply, _Mapping]]] = ..., region: _Optional[_Union[PictureRegion, _Mapping]] = ...) -> None: ...

class SegmentRegionReply(_message.Message):
    __slots__ = ("code", "message", "reply")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reply: SegmentReply
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reply: _Optional[_Union[SegmentReply, _Mapping]] = ...) -> None: ...

class AnalyzeReply(_message.Message):
    __slots__ = ("image_uuid", "model_name", "findings", "steps")
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    model_name: str
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    steps: _containers.RepeatedCompositeFieldContainer[StepTiming]
    def __init__(self, image_uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., steps: _Optional[_Iterable[_Union[StepTiming, _Mapping]]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("box", "results")
    BOX_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    box: Box
    results: _containers.RepeatedCompositeFieldContainer[StepResult]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., results: _Optional[_Iterable[_Union[StepResult, _Mapping]]] = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("step", "model_name", "model_version", "code", "message", "classes", "findings", "mask")
    STEP_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    step: str
    model_name: str
    model_version: int
    code: int
    message: str
    classes: _containers.RepeatedCompositeFieldContainer[Class]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    mask: SegmentReply
    def __init__(self, step: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., mask: _Optional[_Union[SegmentReply, _Mapping]] = ...) -> None: ...

class StepTiming(_message.Message):
    __slots__ = ("step", "model_name", "calls", "failed", "total_us", "timing")
    STEP_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    step: str
    model_name: str
    calls: int
    failed: int
    total_us: int
    timing: Timing
    def __init__(self, step: _Optional[str] = ..., model_name: _Optional[str] = ..., calls: _Optional[int] = ..., failed: _Optional[int] = ..., total_us: _Optional[int] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

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

class ModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "task", "versions", "labels", "width", "height", "max_batch_size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    task: str
    versions: _containers.RepeatedScalarFieldContainer[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    width: int
    height: int
    max_batch_size: int
    def __init__(self, name: _Optional[str] = ..., task: _Optional[str] = ..., versions: _Optional[_Iterable[int]] = ..., labels: _Optional[_Iterable[str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., max_batch_size: _Optional[int] = ...) -> None: ...

class ModelMetadata(_message.Message):
    __slots__ = ("name", "versions", "platform", "inputs", "outputs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    versions: _containers.RepeatedScalarFieldContainer[str]
    platform: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorMetadata]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorMetadata]
    def __init__(self, name: _Optional[str] = ..., versions: _Optional[_Iterable[str]] = ..., platform: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorMetadata, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorMetadata, _Mapping]]] = ...) -> None: ...

class TensorMetadata(_message.Message):
    __slots__ = ("name", "datatype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class ModelReady(_message.Message):
    __slots__ = ("name", "ready")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    name: str
    ready: bool
    def __init__(self, name: _Optional[str] = ..., ready: _Optional[bool] = ...) -> None: ...

class Picture(_message.Message):
    __slots__ = ("image_uuid",)
    IMAGE_UUID_FIELD_NUMBER: _ClassVar[int]
    image_uuid: str
    def __init__(self, image_uuid: _Optional[str] = ...) -> None: ...

class CreateUploadsReply(_message.Message):
    __slots__ = ("uploads", "expires_in_seconds", "max_bytes")
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    uploads: _containers.RepeatedCompositeFieldContainer[Upload]
    expires_in_seconds: int
    max_bytes: int
    def __init__(self, uploads: _Optional[_Iterable[_Union[Upload, _Mapping]]] = ..., expires_in_seconds: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...
