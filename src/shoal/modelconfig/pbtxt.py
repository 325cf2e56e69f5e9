"""config.pbtxt as a protobuf message (``inference.ModelConfig`` of Triton's model_config.proto)."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf import json_format, text_format

from shoal.modelconfig import keys, pbtxt_faults
from shoal.runtime import intake

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.fault import FaultReport

FILE = "config.pbtxt"
LARGEST_BYTES = 2**18
"""The largest file that is read: protobuf's parser takes seconds for a megabyte of some texts."""

Message: TypeAlias = Any
"""A protobuf message; tritonclient ships no types."""

DTYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
}
"""Triton's name of a data type, and numpy's."""


def load(path: Path, report: FaultReport) -> Message | None:
    """The ``ModelConfig`` message at ``path``; None, with the faults in ``report``, if it can't be read.

    Fields that only a newer Triton may know are noted and left out.
    """
    text = _text(path, report)
    if text is None:
        return None
    faults, rest = pbtxt_faults.find(text, parse)
    for fault in faults:
        told = report.note if fault.unknown_field else report.error
        told(path, f"line {fault.line}" if fault.line else "", fault.message)
    if not all(fault.unknown_field for fault in faults):
        return None
    try:
        return parse(rest)
    except text_format.ParseError:
        report.error(path, "", f"{len(faults)} faults are named; there are more")
        return None


def _text(path: Path, report: FaultReport) -> str | None:
    try:
        content = intake.read(path, LARGEST_BYTES)
        if not content.startswith(BOM_UTF8):
            return content.decode().replace("\r\n", "\n")
        report.error(path, "line 1", "begins with a byte order mark, which Triton can't read; save it without one")
    except FileNotFoundError:
        report.error(path, "", "missing; `shoal model add` writes one, and any Triton model repository has it")
    except OSError as error:
        report.error(path, "", f"can't be read: {error.strerror}")
    except UnicodeDecodeError as error:
        report.error(path, "", intake.not_utf8(error))
    return None


def parse(text: str) -> Message:
    """The ``ModelConfig`` message that ``text`` says.

    Raises:
        google.protobuf.text_format.ParseError: it is none.
    """
    # tritonclient takes 0.3 s to import: whoever reads no model should not pay for it.
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(text, model_config_pb2.ModelConfig())


def enum_name(message: Message, field: str) -> str:
    """The name of an enum field's value, such as ``TYPE_UINT8``; its number where it has none."""
    values = type(message).DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    number = getattr(message, field)
    return values[number].name if number in values else str(number)


def datatype(tensor: Message) -> str:
    """The v2 protocol's name of a tensor's data type, such as ``UINT8``."""
    return enum_name(tensor, "data_type").removeprefix("TYPE_")


def instances(config: Message) -> int:
    """Batches that execute at once: in each lane of each instance of all groups, on all GPUs that they name.

    Triton's default is one group of one instance, and an instance has one lane unless ``shoal.lanes`` says otherwise.
    """
    count = sum(max(group.count, 1) * max(len(group.gpus), 1) for group in config.instance_group) or 1
    return count * lanes(config)


def is_ensemble(config: Message) -> bool:
    """Whether it is made of other models, and has no file of its own."""
    return bool(config.platform == "ensemble")


def part_of(config: Message) -> str:
    """The ensemble whose step it is; empty: it is a model by itself."""
    return str(config.parameters[keys.PART_OF].string_value) if keys.PART_OF in config.parameters else ""


def lanes(config: Message) -> int:
    """Batches that each instance executes at once; 1 where ``shoal.lanes`` is missing or no such number."""
    text = config.parameters[keys.LANES].string_value if keys.LANES in config.parameters else ""
    return max(1, int(text)) if text.isdecimal() else 1


def set_instances(config: Message, count: int) -> None:
    """Has ``config`` execute ``count`` batches at once, in one group: in an instance's lanes, where it has lanes.

    An ensemble has no instances, and executes as many as its ``shoal.lanes`` say.
    """
    if is_ensemble(config):
        config.parameters[keys.LANES].string_value = str(count)
        return
    group = config.instance_group[0] if config.instance_group else config.instance_group.add()
    del config.instance_group[1:]
    each = max(1, count // max(len(group.gpus), 1))
    if keys.LANES in config.parameters:
        group.count = 1
        config.parameters[keys.LANES].string_value = str(each)
    else:
        group.count = each


def to_json(config: Message) -> str:
    """The configuration as JSON on one line, the form in which Triton takes it with a load."""
    return json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)


def bytes_of(tensor: Message) -> int:
    """What one tensor of fixed ``dims`` and numeric ``data_type`` takes; 0 for any other."""
    dtype = DTYPES.get(enum_name(tensor, "data_type"), "0")
    bits = 8 if dtype == "bool" else int(dtype.lstrip("uintfloa"))
    return int(math.prod(tensor.dims)) * bits // 8


def is_plain(filename: str) -> bool:
    """Whether it names a file of its folder, and nothing elsewhere."""
    return filename not in {"", ".", ".."} and not {"/", "\0"} & set(filename)
