"""Writes a config.pbtxt that a person can read; ``reader.read`` gives back what went in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from shoal.modelconfig import encoded, keys, pbtxt
from shoal.modelconfig.model import Resize, ResizeFilter
from shoal.modelstore.formats import RUNTIMES, Format, Runtime
from shoal.modelstore.making.runners import MODEL_FILE
from shoal.modelstore.triton_settings import TritonSettings
from shoal.modelstore.warmup import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.batching import BatchingSettings
    from shoal.modelconfig.model import ModelConfig, Tensor
    from shoal.modelstore.making.recipe import Recipe
    from shoal.modelstore.triton_settings import VersionPolicy, Warmup

LABELS_FILE = "labels.txt"

REPORT = f'name: "{encoded.ROW_REPORT}" data_type: TYPE_INT32 dims: [4]'
"""An output of a model that decodes."""
_TRITON_DTYPE = {dtype: name for name, dtype in pbtxt.DTYPES.items()}


def render(
    model: ModelConfig,
    triton: TritonSettings | None = None,
    runtime: Runtime = RUNTIMES[Format.ONNX],
    recipe: Recipe | None = None,
) -> str:
    """config.pbtxt of ``model``; labels and warm-up files are named only. ``recipe``: of what a runner runs."""
    triton = triton or TritonSettings()
    header = (
        f"# Triton's model configuration; the parameters shoal.… are Shoal's. After an edit:\n"
        f"# `shoal model check {model.name}`.\n"
        f'name: "{model.name}"\n{_runtime(model, runtime)}'
    )
    sections = [
        header,
        inputs(model),
        outputs(model),
        _batching(model.batching, triton, lanes=model.encoded),
        _version_policy(triton.version_policy),
        _warmup(model, triton.warmup),
        parameters(model, triton, recipe),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _runtime(model: ModelConfig, runtime: Runtime) -> str:
    lines = [f'backend: "{runtime.backend}"']
    if runtime.platform:
        lines.append(f'platform: "{runtime.platform}"')
    if runtime.backend == "python":
        lines.append(f"# {MODEL_FILE} in each version's folder runs the model beside it.")
        lines.append(f'parameters {{ key: "{keys.MODEL_FILENAME}" value {{ string_value: "{model.path.name}" }} }}')
    else:
        lines.append(f'default_model_filename: "{model.path.name}"')
    return "\n".join(lines)


def inputs(model: ModelConfig) -> str:
    """The field ``input``."""
    comment = (
        "# An RGB picture, rows first; the graph normalises it."
        if model.input.dtype == "uint8"
        else "# A normalised RGB picture, channels first: four times the bytes of uint8."
    )
    if not model.encoded:
        return f"{comment}\ninput [\n  {{ {tensor(model.input)} }}\n]"
    return (
        f"{comment}\n"
        "# Or a batch of JPEGs and such pictures, which the runner decodes: of these two inputs a request has one.\n"
        f"input [\n  {{ {tensor(model.input)} optional: true }},\n"
        f'  {{ name: "{encoded.ENCODED_ROWS}" data_type: TYPE_UINT8 dims: [-1] optional: true }}\n]'
    )


def outputs(model: ModelConfig) -> str:
    """The field ``output``."""
    lines = [tensor(output) for output in model.outputs]
    if model.labels:
        lines[0] += f' label_filename: "{LABELS_FILE}"'
    if model.encoded:
        lines.append(REPORT)
    return "output [\n" + ",\n".join(f"  {{ {line} }}" for line in lines) + "\n]"


def tensor(told: Tensor) -> str:
    """An input's or output's name, data type and shape."""
    dims = ", ".join(map(str, told.shape))
    return f"name: {json.dumps(told.name, ensure_ascii=False)} data_type: {_TRITON_DTYPE[told.dtype]} dims: [{dims}]"


def _batching(batching: BatchingSettings, triton: TritonSettings, *, lanes: bool) -> str:
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
        f"# {_instances_comment(triton, lanes=lanes)}\n"
        f"instance_group [\n  {{ {instances(batching, triton, lanes=lanes)} }}\n]"
    )


def _instances_comment(triton: TritonSettings, *, lanes: bool) -> str:
    if lanes:
        return f"One process{' a GPU' if triton.gpus else ''}, which executes shoal.lanes batches at once."
    return f"Batches that execute at once{', on each of the GPUs' if triton.gpus else ''}."


def instances(batching: BatchingSettings, triton: TritonSettings, *, lanes: bool) -> str:
    """An instance group: so many instances, or one with lanes."""
    count = 1 if lanes else each_gpu(batching, triton)
    gpus = f" gpus: [{', '.join(map(str, triton.gpus))}]" if triton.gpus else ""
    return f"count: {count} kind: KIND_{triton.instance_kind.upper()}{gpus}"


def each_gpu(batching: BatchingSettings, triton: TritonSettings) -> int:
    """Batches that execute at once on one GPU."""
    return batching.instance_count // max(len(triton.gpus), 1)


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


def parameters(model: ModelConfig, triton: TritonSettings, recipe: Recipe | None = None) -> str:
    """The ``shoal.…`` parameters."""
    values = {keys.TASK: model.task.value, keys.RESIZE: model.resize.value}
    if model.resize is Resize.CROP:
        values[keys.RESIZE_SHORTER_SIDE] = str(model.resize_shorter_side)
    if model.resize_filter is not ResizeFilter.BILINEAR:
        values[keys.RESIZE_FILTER] = model.resize_filter.value
    if model.input.dtype != "uint8":
        values[keys.MEAN] = " ".join(map(repr, model.mean))
        values[keys.STD] = " ".join(map(repr, model.std))
    if model.encoded:
        values[keys.LANES] = str(each_gpu(model.batching, triton))
    if recipe and recipe.network_input:
        values |= network(recipe.network_input, recipe)
    if model.head:
        values[keys.HEAD] = model.head
    values |= {f"{keys.HEAD}.{name}": repr(value) for name, value in sorted(model.head_parameters.items())}
    width = max(map(len, values))
    return "\n".join(
        f'parameters {{ key: "{key}"{" " * (width - len(key))} value {{ string_value: "{value}" }} }}'
        for key, value in values.items()
    )


def network(input_: Tensor, recipe: Recipe) -> dict[str, str]:
    """Parameters that say what the GPU runner makes of frames for a network that takes ``input_``."""
    layout = "NCHW" if input_.shape[0] == 3 else "NHWC"
    values = {keys.RUNNER_INPUT: f"{_TRITON_DTYPE[input_.dtype].removeprefix('TYPE_')} {layout}"}
    if input_.dtype != "uint8":
        values[keys.RUNNER_MEAN], values[keys.RUNNER_STD] = (
            " ".join(map(repr, of)) for of in (recipe.mean, recipe.std)
        )
    return values
