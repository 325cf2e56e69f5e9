"""Checks the fields of a config.pbtxt that Triton alone reads, so that it doesn't find their faults first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.modelconfig import encoded, pbtxt
from shoal.modelstore import warmup

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.fault import FaultReport


def check_settings(folder: Path, config: pbtxt.Message, report: FaultReport) -> None:
    """Adds the faults of backend, version_policy, instance_group, dynamic_batching and model_warmup to ``report``."""
    file = folder / pbtxt.FILE
    if not config.backend and not config.platform:
        report.error(file, "backend", 'missing; such as "onnxruntime", "pytorch", "tensorrt" or "python"')
    if config.version_policy.HasField("latest") and config.version_policy.latest.num_versions < 1:
        report.error(file, "version_policy.latest.num_versions", "must be 1 or more")
    _check_instances(file, config, report)
    if config.HasField("sequence_batching"):
        report.error(file, "sequence_batching", "a picture is no sequence; Shoal needs dynamic_batching")
    for sample in config.model_warmup:
        _check_warmup(folder, config, sample, report)


def _check_instances(file: Path, config: pbtxt.Message, report: FaultReport) -> None:
    for group in config.instance_group:
        if group.count < 0:
            report.error(file, "instance_group.count", f"is {group.count}; it must be 1 or more")
        if group.gpus and pbtxt.enum_name(group, "kind") == "KIND_CPU":
            report.error(file, "instance_group.gpus", f"{list(group.gpus)} with KIND_CPU; use KIND_GPU")
        if min(group.gpus, default=0) < 0 or len(set(group.gpus)) < len(group.gpus):
            report.error(file, "instance_group.gpus", f"{list(group.gpus)}: each GPU's number once, from 0")


def _check_warmup(folder: Path, config: pbtxt.Message, sample: pbtxt.Message, report: FaultReport) -> None:
    file = folder / pbtxt.FILE
    if not 1 <= sample.batch_size <= max(config.max_batch_size, 1):
        report.error(
            file, "model_warmup.batch_size", f"is {sample.batch_size}; 1 to max_batch_size ({config.max_batch_size})"
        )
    inputs = {tensor.name: tensor for tensor in encoded.pictures(config)}
    if sample.inputs.keys() != inputs.keys():
        named = ", ".join(sorted(sample.inputs)) or "none"
        report.error(file, "model_warmup.inputs", f"has {named}; the model takes {', '.join(sorted(inputs))}")
        return
    for name, given in sample.inputs.items():
        if (given.data_type, list(given.dims)) != (inputs[name].data_type, list(inputs[name].dims)):
            report.error(file, "model_warmup.inputs", f"{name!r} has another data_type or dims than the model's input")
        if given.WhichOneof("input_data_type") == "input_data_file":
            _check_data(folder / warmup.FOLDER, given, report)


def _check_data(folder: Path, given: pbtxt.Message, report: FaultReport) -> None:
    name = given.input_data_file
    if not pbtxt.is_plain(name):
        report.error(folder, "model_warmup.inputs.input_data_file", f"{name!r} leaves the folder {warmup.FOLDER}")
    elif not (folder / name).is_file():
        report.error(folder / name, "", "missing; model_warmup.inputs.input_data_file names it")
    else:
        needed = pbtxt.bytes_of(given)
        if (size := (folder / name).stat().st_size) != needed:
            report.error(folder / name, "", f"has {size:,} bytes; one input has {needed:,}")
