"""Writes a config.pbtxt that a person can read; ``reader.read`` gives back what went in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from shoal.modelstore import keys, pbtxt
from shoal.modelstore.config import Resize

if TYPE_CHECKING:
    from shoal.batching.settings import BatchingSettings
    from shoal.modelstore.config import ModelConfig, Tensor

LABELS_FILE = "labels.txt"

_TRITON_DTYPE = {dtype: name for name, dtype in pbtxt.DTYPES.items()}


def render(model: ModelConfig) -> str:
    """config.pbtxt of ``model``, labels named but not contained."""
    header = (
        f"# Triton's model configuration; the parameters shoal.… are Shoal's. After an edit:\n"
        f"# `shoal model check {model.name}`.\n"
        f'name: "{model.name}"\nbackend: "onnxruntime"\ndefault_model_filename: "{model.path.name}"'
    )
    sections = [
        header,
        _input(model),
        _outputs(model),
        _batching(model.batching),
        _parameters(model),
    ]
    return "\n\n".join(sections) + "\n"


def _input(model: ModelConfig) -> str:
    comment = (
        "# An RGB picture, rows first; the graph normalises it."
        if model.input.dtype == "uint8"
        else "# A normalised RGB picture, channels first: four times the bytes of uint8."
    )
    return f"{comment}\ninput [\n  {{ {_tensor(model.input)} }}\n]"


def _outputs(model: ModelConfig) -> str:
    lines = [_tensor(output) for output in model.outputs]
    if model.labels:
        lines[0] += f' label_filename: "{LABELS_FILE}"'
    return "output [\n" + ",\n".join(f"  {{ {line} }}" for line in lines) + "\n]"


def _tensor(tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.shape))
    return (
        f"name: {json.dumps(tensor.name, ensure_ascii=False)} data_type: {_TRITON_DTYPE[tensor.dtype]} dims: [{dims}]"
    )


def _batching(batching: BatchingSettings) -> str:
    preferred = ", ".join(map(str, batching.preferred_batch_size))
    lines = [f"  preferred_batch_size: [{preferred}]"] if preferred else []
    lines.append(f"  max_queue_delay_microseconds: {batching.max_queue_delay_microseconds}")
    policy = [
        f"{key}: {value}"
        for key, value in (
            ("max_queue_size", batching.max_queue_size),
            ("default_timeout_microseconds", batching.default_timeout_microseconds),
        )
        if value
    ]
    if policy:
        lines.append(f"  default_queue_policy {{ {' '.join(policy)} }}")
    return (
        "# A full preferred batch goes at once; a smaller one when its oldest picture has waited this long.\n"
        f"max_batch_size: {batching.max_batch_size}\n"
        "dynamic_batching {\n" + "\n".join(lines) + "\n}\n"
        "# Batches that execute at once.\n"
        f"instance_group [\n  {{ count: {batching.instance_count} kind: KIND_AUTO }}\n]"
    )


def _parameters(model: ModelConfig) -> str:
    values = {keys.TASK: model.task.value, keys.RESIZE: model.resize.value}
    if model.resize is Resize.CROP:
        values[keys.RESIZE_SHORTER_SIDE] = str(model.resize_shorter_side)
    if model.input.dtype != "uint8":
        values[keys.MEAN] = " ".join(map(repr, model.mean))
        values[keys.STD] = " ".join(map(repr, model.std))
    if model.head:
        values[keys.HEAD] = model.head
    values |= {f"{keys.HEAD}.{name}": repr(value) for name, value in sorted(model.head_parameters.items())}
    width = max(map(len, values))
    return "\n".join(
        f'parameters {{ key: "{key}"{" " * (width - len(key))} value {{ string_value: "{value}" }} }}'
        for key, value in values.items()
    )
