"""Adds a model to a store, whole or not at all."""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from shoal.errors import ConfigurationError
from shoal.modelconfig import keys
from shoal.modelconfig.model import ModelConfig, Resize
from shoal.modelconfig.pbtxt import FILE
from shoal.modelstore import external, formats, graph, repository, trial, warmup
from shoal.modelstore.check import check_folder, is_step
from shoal.modelstore.formats import Format
from shoal.modelstore.making import runners
from shoal.modelstore.making.render import LABELS_FILE, render
from shoal.modelstore.making.wrap import wrap
from shoal.service.section import Name

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from shoal.modelconfig.model import Tensor
    from shoal.modelstore.formats import Runner, Runtime
    from shoal.modelstore.making.recipe import Recipe

log = logging.getLogger(__name__)


def add_onnx(
    store: Path, file: Path, recipe: Recipe, *, version: int | None = None, force: bool = False
) -> ModelConfig:
    """Adds the ONNX model in ``file``; see ``add_model``."""
    try:
        return add_model(store, graph.load(file), recipe, version=version, force=force, weights=file.parent)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def add_model(
    store: Path,
    model: onnx.ModelProto,
    recipe: Recipe,
    *,
    version: int | None = None,
    force: bool = False,
    weights: Path | None = None,
) -> ModelConfig:
    """Adds ``model``, wrapped to take uint8 NHWC pictures, and returns it as the store now serves it.

    Args:
        store: The store's folder; made if missing.
        model: One picture input, float or uint8, NCHW or NHWC; see ``wrap``.
        recipe: How it is fed and read.
        version: None: 1. A new number adds a version to a model that is there; its config.pbtxt and labels stay.
        force: Replace the model, all its versions, if it is there already.
        weights: The folder of files that hold weights, where ``model`` has some elsewhere.

    Raises:
        ConfigurationError: the model, the recipe or the place is wrong; the store is as before.
    """
    refuse_existing(store, recipe.name, version=version, force=force)
    wrapped = wrap(model, recipe)
    recipe = replace(recipe, runner=runner_of(store, recipe, force=force))
    runtime = formats.runtime(Format.ONNX, recipe.runner)
    config = configuration(store, recipe, wrapped.input, wrapped.outputs, version or 1, runtime.filename)

    def write(folder: Path) -> None:
        _write_model(wrapped.model, folder / str(config.version) / runtime.filename, weights)
        write_settings(folder, config, recipe, runtime)

    return install(store, config.name, config.version, write, force=force)


def _write_model(model: onnx.ModelProto, file: Path, weights: Path | None) -> None:
    if weights is not None and external.tensors(model):
        external.save(model, weights, file.with_name(external.FILE))
    try:
        file.write_bytes(model.SerializeToString())
    except ValueError as error:
        raise ConfigurationError(f"the model {graph.TOO_LARGE}") from error


def runner_of(store: Path, recipe: Recipe, *, force: bool) -> Runner | None:
    """The recipe's, or that of the model which gets another version: its config.pbtxt stays."""
    if force or not (store / recipe.name).exists():
        return recipe.runner
    present = repository.read_model(store, recipe.name)
    if present.backend == "ensemble":
        raise ConfigurationError(f"{store / recipe.name} is an ensemble; add the version to {recipe.name}_model")
    if present.encoded:
        return "gpu"
    return "python" if present.backend == "python" else None


def refuse_existing(store: Path, name: str, *, version: int | None, force: bool) -> None:
    """Raises ConfigurationError where adding would overwrite what nobody asked to replace."""
    target = store / name
    refuse_link(target)
    if force or not target.exists():
        return
    if version is None:
        raise ConfigurationError(f"{target} exists; add a version with --version N, or replace it with --force")
    if (target / str(version)).exists():
        raise ConfigurationError(f"{target / str(version)} exists; choose another --version, or --force")


def refuse_link(target: Path) -> None:
    """Raises ConfigurationError where a model is a link: model-sync keeps it, and what is behind it never changes."""
    if target.is_symlink():
        raise ConfigurationError(f"{target} is a link, as model-sync makes them; push the model to its store instead")


def _check_name(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ConfigurationError(
            f"{name!r} can't be a model's name: lower-case letters, digits, '.', '_' and '-' only, 63 at most"
        ) from error


def configuration(
    store: Path, recipe: Recipe, input_: Tensor, outputs: tuple[Tensor, ...], version: int, filename: str
) -> ModelConfig:
    """What config.pbtxt will say of a model that takes ``input_`` and gives ``outputs``."""
    crop = recipe.resize is Resize.CROP
    sides = input_.shape[:2] if input_.dtype == "uint8" else input_.shape[1:]
    return ModelConfig(
        name=recipe.name,
        version=version,
        path=store / recipe.name / str(version) / filename,
        task=recipe.task,
        input=input_,
        outputs=outputs,
        batching=recipe.batching,
        labels=recipe.labels,
        resize=recipe.resize,
        resize_shorter_side=(recipe.resize_shorter_side or round(max(sides, default=1) * 8 / 7)) if crop else 0,
        resize_filter=recipe.resize_filter,
        mean=recipe.mean,
        std=recipe.std,
        head=recipe.head or keys.DEFAULT_HEAD[recipe.task],
        head_parameters=recipe.head_parameters,
        encoded=recipe.runner == "gpu",
    )


def install(store: Path, name: str, version: int, write: Callable[[Path], None], *, force: bool) -> ModelConfig:
    """Has ``write`` fill a folder, checks it, and moves it into the store.

    Args:
        store: Made if missing.
        name: The model's.
        version: The version that is added.
        write: Fills the model's folder, in which the version's is there already.
        force: Replace the model if it is there.

    Raises:
        ConfigurationError: the name, what was written or the place is wrong; the store is as before.
    """
    install_folder(store, name, version, write, force=force)
    return repository.read_model(store, name)


def install_folder(store: Path, name: str, version: int, write: Callable[[Path], None], *, force: bool) -> None:
    """Does what ``install`` does, also with a step of an ensemble, which is no model by itself."""
    _check_name(name)
    try:
        store.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the rename can't cross a file system; hidden, so that nobody reads it half-written.
        with tempfile.TemporaryDirectory(dir=store, prefix=f".{name}.") as scratch:
            folder = Path(scratch) / name
            (folder / str(version)).mkdir(parents=True)
            write(folder)
            _verify(folder)
            _move(folder, store / name, version, force=force)
    except OSError as error:
        raise ConfigurationError(f"{store}: can't be written: {error}") from error


def write_settings(folder: Path, config: ModelConfig, recipe: Recipe, runtime: Runtime) -> None:
    """config.pbtxt, and the labels, the warm-up files and the runner that it names."""
    if recipe.runner in {"python", "gpu"}:
        for name, source in runners.files(recipe.runner).items():
            shutil.copyfile(source, folder / str(config.version) / name)
    (folder / FILE).write_text(render(config, recipe.triton, runtime, recipe), encoding="utf-8")
    if config.labels:
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in config.labels), encoding="utf-8")
    for name, content in warmup.files(recipe.triton.warmup, config).items():
        file = folder / warmup.FOLDER / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)


def _verify(folder: Path) -> None:
    report = check_folder(folder)
    if report.errors:
        # The scratch folder's path would mean nothing to the reader.
        raise ConfigurationError(
            "; ".join(f"{fault.field or fault.file.name}: {fault.message}" for fault in report.errors)
        )
    if is_step(report):
        return
    try:
        if remark := trial.refuse(folder):
            log.warning("model %s needs a pool with engine: triton: %s", folder.name, _plain(remark, folder))
    except ConfigurationError as error:
        raise ConfigurationError(_plain(str(error), folder)) from error


def _plain(text: str, folder: Path) -> str:
    """Without the scratch folder's path."""
    return text.replace(f"{folder.parent}/", "")


def _move(folder: Path, target: Path, version: int, *, force: bool) -> None:
    if not target.exists():
        folder.rename(target)
    elif force:
        replace_folder(folder, target)
    else:
        _move_version(folder, target, version)


def _move_version(folder: Path, target: Path, version: int) -> None:
    present = repository.read_model(target.parent, target.name)
    added = repository.read_model(folder.parent, folder.name)
    if (present.input, present.outputs, present.path.name) != (added.input, added.outputs, added.path.name):
        raise ConfigurationError(
            f"version {version} is another kind of file, or takes or gives other tensors, than {target / FILE} says; "
            "add it under another name, or replace the model with --force"
        )
    (folder / str(version)).rename(target / str(version))


def replace_folder(folder: Path, target: Path) -> None:
    """Moves ``folder`` to ``target``; what was there goes to ``old`` beside where ``folder`` was."""
    old = folder.with_name("old")
    target.rename(old)
    try:
        folder.rename(target)
    except OSError:
        old.rename(target)
        raise
