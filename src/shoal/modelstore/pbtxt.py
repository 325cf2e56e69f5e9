"""config.pbtxt as a protobuf message (``inference.ModelConfig`` of Triton's model_config.proto)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelstore.fault import Report

FILE = "config.pbtxt"

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


def load(path: Path, report: Report) -> Any | None:  # noqa: ANN401 - tritonclient ships no types
    """The ``ModelConfig`` message at ``path``; None, with the faults in ``report``, if it can't be read."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        report.error(path, "", "missing; `shoal model add` writes one, and any Triton model repository has it")
    except (OSError, UnicodeDecodeError) as error:
        report.error(path, "", f"can't be read: {error}")
    except text_format.ParseError as error:
        line = error.GetLine()
        report.error(path, f"line {line}" if line else "", _without_position(str(error)))
    return None


def parse(text: str) -> Any:  # noqa: ANN401 - tritonclient ships no types
    """The ``ModelConfig`` message that ``text`` says.

    Raises:
        google.protobuf.text_format.ParseError: it is none.
    """
    # tritonclient takes 0.3 s to import: whoever reads no model should not pay for it.
    from tritonclient.grpc import model_config_pb2  # noqa: PLC0415

    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _without_position(message: str) -> str:
    """Protobuf's text without its leading ``line:column :``."""
    head, separator, tail = message.partition(" : ")
    return tail if separator and head.replace(":", "").isdigit() else message
