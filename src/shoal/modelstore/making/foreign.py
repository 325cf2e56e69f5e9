"""Adds models as they are: files whose tensors we can't read, and files that come with a config.pbtxt."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from google.protobuf import text_format

from shoal.errors import ConfigurationError
from shoal.modelconfig import pbtxt
from shoal.modelstore import formats, graph
from shoal.modelstore.formats import default_filename
from shoal.modelstore.making import build
from shoal.modelstore.making.runners import frames
from shoal.runtime import intake

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig, Tensor
    from shoal.modelstore.formats import Format
    from shoal.modelstore.making.recipe import Recipe


def add_described(
    store: Path,
    file: Path,
    kind: Format,
    recipe: Recipe,
    input_: Tensor,
    outputs: tuple[Tensor, ...],
    *,
    version: int | None = None,
    force: bool = False,
) -> ModelConfig:
    """Adds a model of ``kind`` that takes ``input_`` and gives ``outputs``, unwrapped.

    A float input is normalised with the recipe's mean and std: by the worker, or on the GPU by the GPU runner.

    Args:
        store: The store's folder; made if missing.
        file: The model.
        kind: Its format.
        recipe: How it is fed and read.
        input_: uint8 ``(H, W, 3)`` or float32 ``(3, H, W)``, without the batch dimension; for the GPU runner either
            shape of uint8, float16 or float32.
        outputs: Without the batch dimension.
        version: See ``build.add_model``.
        force: See ``build.add_model``.

    Raises:
        ConfigurationError: what is said of the model is wrong, or the place; the store is as before.
    """
    build.refuse_existing(store, recipe.name, version=version, force=force)
    recipe = replace(recipe, runner=build.runner_of(store, recipe, force=force))
    runtime = formats.runtime(kind, recipe.runner, file)
    if recipe.runner == "gpu":
        recipe, input_ = replace(recipe, network_input=input_), frames(input_)
    config = build.configuration(store, recipe, input_, outputs, version or 1, runtime.filename)

    def write(folder: Path) -> None:
        _copy(file, folder / str(config.version) / runtime.filename)
        build.write_settings(folder, config, recipe, runtime)

    return build.install(store, config.name, config.version, write, force=force)


def add_configured(
    store: Path,
    file: Path,
    name: str | None,
    config: Path,
    labels: Path | None,
    *,
    version: int | None = None,
    force: bool = False,
) -> ModelConfig:
    """Adds a model with the config.pbtxt that it has; both go in byte for byte.

    Args:
        store: The store's folder; made if missing.
        file: The model, of any backend's format.
        name: None: as ``config`` says.
        config: A config.pbtxt, Shoal's parameters included.
        labels: What its ``label_filename`` names; None: it names none.
        version: See ``build.add_model``.
        force: See ``build.add_model``.

    Raises:
        ConfigurationError: a file is wrong, or the place; the store is as before.
    """
    text, message = _read_config(config)
    if not (chosen := name or message.name):
        raise ConfigurationError(f"{config}: name: missing; add --name")
    build.refuse_existing(store, chosen, version=version, force=force)
    filename = message.default_model_filename or default_filename(message.backend, message.platform)
    if not pbtxt.is_plain(filename):
        raise ConfigurationError(f"{config}: default_model_filename: {filename!r} leaves the model's folder")

    def write(folder: Path) -> None:
        _copy_model(file, folder / str(version or 1) / filename)
        (folder / pbtxt.FILE).write_text(text, encoding="utf-8")
        if labels is not None:
            _copy(labels, folder / _label_filename(config, message))

    return build.install(store, chosen, version or 1, write, force=force)


def _read_config(config: Path) -> tuple[str, pbtxt.Message]:
    """The text of a config.pbtxt, and what it says."""
    try:
        text = intake.read_text(config, pbtxt.LARGEST_BYTES)
        return text, pbtxt.parse(text)
    except OSError as error:
        raise ConfigurationError(f"{config}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{config}: {intake.not_utf8(error)}") from error
    except text_format.ParseError as error:
        raise ConfigurationError(f"{config}: {error}") from None


def _copy_model(file: Path, target: Path) -> None:
    """With the files beside it that an ONNX model has its weights in."""
    _copy(file, target)
    if target.suffix != ".onnx":
        return
    try:
        beside = graph.files_beside(file)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from error
    for each in beside:
        place = target.parent / each.relative_to(file.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        _copy(each, place)


def _copy(file: Path, target: Path) -> None:
    try:
        with intake.opened(file) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 2**20)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or target}: {error.strerror}") from error


def _label_filename(config: Path, message: pbtxt.Message) -> str:
    name: str = next((output.label_filename for output in message.output if output.label_filename), "")
    if not name or not pbtxt.is_plain(name):
        raise ConfigurationError(f"--labels: {config} has no label_filename, or one that leaves the model's folder")
    return name
