"""The options of ``shoal model add``: from words to a recipe. Messages name the option."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import ConfigurationError
from shoal.modelconfig import pbtxt
from shoal.modelconfig.model import Tensor
from shoal.modelstore import labels as label_file
from shoal.modelstore.triton_settings import InstanceKind, TritonSettings, VersionPolicy, Warmup

if TYPE_CHECKING:
    from collections.abc import Iterable

Options = dict[str, Any]
"""Option to value, as ``shoal model add`` got them; None where one wasn't given."""

SETTINGS = (
    "labels", "resize", "resize_shorter_side", "resize_filter", "head", "head_parameter", "max_batch_size",
    "preferred_batch_size", "max_queue_delay_microseconds", "max_queue_size", "instances", "instance_kind", "gpus",
    "version_policy", "warmup", "warmup_batch_size", "warmup_count", "runner",
)  # fmt: skip
"""Options that config.pbtxt keeps: a new version changes nothing of it."""

WITH_CONFIG = frozenset({"source", "name", "config", "labels", "version", "force", "store"})
"""What goes together with ``--config``."""


def names_given(options: Options, names: Iterable[str]) -> str:
    """Those of ``names`` that were given, as typed."""
    return ", ".join(flag(name) for name in sorted(names) if _is_given(options[name]))


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value not in ([], ())


def flag(name: str) -> str:
    """An option as it is typed: ``--head-parameter`` for ``head_parameter``."""
    return "--" + name.replace("_", "-")


def recipe_fields(options: Options) -> dict[str, Any]:
    """The fields of ``Recipe`` that were given, without its settings."""
    return _given(
        name=options["name"],
        task=options["task"],
        mean=triple("--mean", options["mean"]),
        std=triple("--std", options["std"]),
        channel_order=options["channel_order"],
        size=size(options["size"]),
        layout=options["layout"],
        resize=options["resize"],
        resize_shorter_side=options["resize_shorter_side"],
        resize_filter=options["resize_filter"],
        head=options["head"],
        head_parameters=head_parameters(options["head_parameter"]),
        labels=labels(options["labels"]),
        runner=options["runner"],
    )


def batching_fields(options: Options) -> dict[str, Any]:
    """The fields of ``BatchingSettings`` that were given; ``instance_count`` is of all GPUs together."""
    largest, preferred = options["max_batch_size"], numbers("preferred_batch_size", options, least=1)
    if largest and preferred and max(preferred) > largest:
        raise ConfigurationError(f"--preferred-batch-size {max(preferred)} is over --max-batch-size {largest}")
    gpus = len(numbers("gpus", options, least=0) or ()) or 1
    return _given(
        max_batch_size=largest,
        # What the model prefers is of no use with another maximum.
        preferred_batch_size=preferred if preferred or largest is None else (),
        max_queue_delay_microseconds=options["max_queue_delay_microseconds"],
        max_queue_size=options["max_queue_size"],
        instance_count=(options["instances"] or 1) * gpus if options["instances"] or gpus > 1 else None,
    )


def triton_settings(options: Options, base: TritonSettings, max_batch_size: int) -> TritonSettings:
    """``base`` with what was given."""
    gpus = numbers("gpus", options, least=0) or base.gpus
    decodes = options["runner"] in {"gpu", "gpu-decode"}
    on_gpu = options["gpus"] or decodes
    kind = options["instance_kind"] or (InstanceKind.GPU if on_gpu else base.instance_kind)
    if decodes and kind is InstanceKind.CPU:
        raise ConfigurationError(f"--runner {options['runner']} decodes on a GPU; leave --instance-kind cpu out")
    if gpus and kind is InstanceKind.CPU:
        raise ConfigurationError("--gpus goes with --instance-kind gpu")
    return replace(
        base,
        instance_kind=kind,
        gpus=gpus,
        version_policy=version_policy(options["version_policy"]) or base.version_policy,
        warmup=_warmup(options, max_batch_size) or base.warmup,
    )


def version_policy(text: str | None) -> VersionPolicy | None:
    """``--version-policy``: ``latest:N``, ``specific:N,…`` or ``all``."""
    if text is None:
        return None
    if text == "all":
        return VersionPolicy(every=True)
    chosen = re.fullmatch(r"(latest|specific):([1-9]\d*(?:,[1-9]\d*)*)", text)
    versions = tuple(map(int, chosen[2].split(","))) if chosen else ()
    if chosen and chosen[1] == "specific":
        return VersionPolicy(specific=tuple(sorted(set(versions))))
    if len(versions) == 1:
        return VersionPolicy(latest=versions[0])
    raise ConfigurationError(f"--version-policy {text}: expected latest:N, specific:N,… or all")


def tensor(option: str, text: str) -> Tensor:
    """``NAME:DTYPE:DIMS``; DIMS are without the batch, -1 where one varies."""
    name, _, rest = text.partition(":")
    dtype, _, dims = rest.partition(":")
    if (
        not name
        or dtype not in pbtxt.DTYPES.values()
        or not re.fullmatch(r"(?:[1-9]\d*|-1)(?:x(?:[1-9]\d*|-1))*", dims)
    ):
        raise ConfigurationError(
            f"{option} {text}: expected NAME:DTYPE:DIMS, such as INPUT__0:uint8:224x224x3; "
            f"a DTYPE is one of {', '.join(pbtxt.DTYPES.values())}"
        )
    return Tensor(name, dtype, tuple(map(int, dims.split("x"))))


def numbers(name: str, options: Options, *, least: int) -> tuple[int, ...] | None:
    """An option with one whole number or several, each once, sorted."""
    text = options[name]
    if text is None:
        return None
    words = text.split(",")
    if not all(word.isdecimal() and int(word) >= least for word in words) or len(set(words)) < len(words):
        raise ConfigurationError(f"{flag(name)} {text}: expected whole numbers from {least}, each once, such as 1,2")
    return tuple(sorted(map(int, words)))


def _warmup(options: Options, max_batch_size: int) -> Warmup | None:
    if not options["warmup"]:
        if extra := names_given(options, ("warmup_batch_size", "warmup_count")):
            raise ConfigurationError(f"{extra}: of what? add --warmup zero, random or a picture")
        return None
    samples = tuple(word if word in {"zero", "random"} else Path(word) for word in options["warmup"])
    names = [sample.name if isinstance(sample, Path) else sample for sample in samples]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"--warmup {', '.join(names)}: each name once")
    sizes = numbers("warmup_batch_size", options, least=1) or ()
    if sizes and sizes[-1] > max_batch_size:
        raise ConfigurationError(f"--warmup-batch-size {sizes[-1]} is over the model's largest, {max_batch_size}")
    return Warmup(samples, sizes, options["warmup_count"] or 1)


def _given(**fields: Any) -> dict[str, Any]:  # fields of several types
    return {key: value for key, value in fields.items() if value is not None}


def triple(option: str, text: str | None) -> tuple[float, float, float] | None:
    """``option``: one number for all channels, or three."""
    if text is None:
        return None
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 3}:
        raise ConfigurationError(f"{option} {text}: expected one number, or three for R,G,B")
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


def size(text: str | None) -> tuple[int, int] | None:
    """``--size``: height and width."""
    if text is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not sides:
        raise ConfigurationError(f"--size {text}: expected HEIGHTxWIDTH, such as 224x224")
    return int(sides[1]), int(sides[2])


def head_parameters(pairs: list[str] | None) -> dict[str, float] | None:
    """``--head-parameter``: names to numbers."""
    parameters = {}
    for pair in pairs or ():
        key, _, number = pair.partition("=")
        try:
            parameters[key] = float(number)
        except ValueError as error:
            raise ConfigurationError(f"--head-parameter {pair}: expected NAME=NUMBER") from error
    return parameters or None


def labels(path: Path | None) -> tuple[str, ...] | None:
    """``--labels``: the lines of a file."""
    if path is None:
        return None
    try:
        return label_file.read(path)
    except OSError as error:
        raise ConfigurationError(f"--labels {path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"--labels {path}: {error}") from error
