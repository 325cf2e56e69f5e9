"""Writes a config.pbtxt that a person can read; ``reader.read`` gives back what went in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from shoal.modelconfig import keys, pbtxt
from shoal.modelconfig.model import Resize, ResizeFilter
from shoal.modelstore.formats import RUNNER, RUNTIMES, Format, Runtime
from shoal.modelstore.triton_settings import TritonSettings
from shoal.modelstore.warmup import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.batching import BatchingSettings
    from shoal.modelconfig.model import ModelConfig, Tensor
    from shoal.modelstore.triton_settings import VersionPolicy, Warmup

LABELS_FILE = "labels.txt"
RUNNER_FILE = "model.py"
"""What Triton's Python backend runs."""

_TRITON_DTYPE = {dtype: name for name, dtype in pbtxt.DTYPES.items()}


def render(model: ModelConfig, triton: TritonSettings | None = None, runtime: Runtime = RUNTIMES[Format.ONNX]) -> str:
    """config.pbtxt of ``model``, labels and warm-up files named but not contained."""
    triton = triton or TritonSettings()
    header = (
        f"# Triton's model configuration; the parameters shoal.… are Shoal's. After an edit:\n"
        f"# `shoal model check {model.name}`.\n"
        f'name: "{model.name}"\n{_runtime(model, runtime)}'
    )
    sections = [
        header,
        _input(model),
        _outputs(model),
        _batching(model.batching, triton),
        _version_policy(triton.version_policy),
        _warmup(model, triton.warmup),
        _parameters(model),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _runtime(model: ModelConfig, runtime: Runtime) -> str:
    lines = [f'backend: "{runtime.backend}"']
    if runtime.platform:
        lines.append(f'platform: "{runtime.platform}"')
    if runtime is RUNNER:
        lines.append(f"# {RUNNER_FILE} in each version's folder runs the model beside it.")
        lines.append(f'parameters {{ key: "{keys.MODEL_FILENAME}" value {{ string_value: "{model.path.name}" }} }}')
    else:
        lines.append(f'default_model_filename: "{model.path.name}"')
    return "\n".join(lines)


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


def _batching(batching: BatchingSettings, triton: TritonSettings) -> str:
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
        f"# Batches that execute at once{', on each of the GPUs' if triton.gpus else ''}.\n"
        f"instance_group [\n  {{ {_instances(batching, triton)} }}\n]"
    )


def _instances(batching: BatchingSettings, triton: TritonSettings) -> str:
    count = batching.instance_count // max(len(triton.gpus), 1)
    gpus = f" gpus: [{', '.join(map(str, triton.gpus))}]" if triton.gpus else ""
    return f"count: {count} kind: KIND_{triton.instance_kind.upper()}{gpus}"


def _version_policy(policy: VersionPolicy) -> str:
    if policy.every:
        return "version_policy { all { } }"
    if policy.specific:
        return f"version_policy {{ specific {{ versions: [{', '.join(map(str, policy.specific))}] }} }}"
    return f"version_policy {{ latest {{ num_versions: {policy.latest} }} }}" if policy.latest > 1 else ""


def _warmup(model: ModelConfig, warmup: Warmup) -> str:
    """A request a sample and batch size."""
    return "\n".join(
        _warmup_request(model, sample, size, warmup.count)
        for sample in warmup.samples
        for size in warmup.batch_sizes or (model.batching.max_batch_size,)
    )


def _warmup_request(model: ModelConfig, sample: str | Path, size: int, count: int) -> str:
    if isinstance(sample, str):
        name, data = sample, f"{sample}_data: true"
    else:
        name, data = sample.stem, f"input_data_file: {json.dumps(name_of(sample), ensure_ascii=False)}"
    dims = ", ".join(map(str, model.input.shape))
    return (
        "model_warmup {\n"
        f"  name: {json.dumps(f'{name}, batch {size}', ensure_ascii=False)} batch_size: {size} count: {count}\n"
        f"  inputs {{ key: {json.dumps(model.input.name, ensure_ascii=False)} "
        f"value {{ data_type: {_TRITON_DTYPE[model.input.dtype]} dims: [{dims}] {data} }} }}\n"
        "}"
    )


def _parameters(model: ModelConfig) -> str:
    values = {keys.TASK: model.task.value, keys.RESIZE: model.resize.value}
    if model.resize is Resize.CROP:
        values[keys.RESIZE_SHORTER_SIDE] = str(model.resize_shorter_side)
    if model.resize_filter is not ResizeFilter.BILINEAR:
        values[keys.RESIZE_FILTER] = model.resize_filter.value
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
