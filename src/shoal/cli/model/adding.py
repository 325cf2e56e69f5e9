"""``shoal model add``."""

# ruff: noqa: ARG001 - typer reads the parameters of `add`, and `add` them from the context
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shoal.cli.model import options
from shoal.cli.model.store import Store, line, store_at
from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Resize, ResizeFilter, Task
from shoal.modelstore import formats
from shoal.modelstore.formats import Runner
from shoal.modelstore.making import build, ensemble, foreign, preprocessor
from shoal.modelstore.making.published import PUBLISHED
from shoal.modelstore.making.recipe import Recipe
from shoal.modelstore.triton_settings import InstanceKind
from shoal.service.home import Home

_FILE_BATCHING = BatchingSettings(max_batch_size=8, max_queue_delay_microseconds=5000, instance_count=2)
_GPU_BATCHING = BatchingSettings(max_batch_size=64, max_queue_delay_microseconds=5000, instance_count=4)


def add(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help=f"A file: ONNX, TorchScript, …; or {', '.join(PUBLISHED)}.")],
    *,
    name: Annotated[str | None, typer.Option(help="What clients call it.")] = None,
    task: Annotated[Task | None, typer.Option(help="What it answers.")] = None,
    mean: Annotated[str | None, typer.Option(help="Of pixels in [0, 255]: one number or R,G,B. Default 0.")] = None,
    std: Annotated[str | None, typer.Option(help="The graph gets (x - mean) / std. Default 255.")] = None,
    channel_order: Annotated[Literal["rgb", "bgr"] | None, typer.Option(help="As trained. Default rgb.")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH, where the model leaves it open.")] = None,
    layout: Annotated[
        Literal["nchw", "nhwc"] | None, typer.Option(help="Where its channels are, where nothing tells.")
    ] = None,
    resize: Annotated[Resize | None, typer.Option(help="How pictures come to that size. Default stretch.")] = None,
    resize_shorter_side: Annotated[int | None, typer.Option(help="Pixels before the crop. Default size x 8/7.")] = None,
    resize_filter: Annotated[ResizeFilter | None, typer.Option(help="As trained. Default bilinear.")] = None,
    head: Annotated[str | None, typer.Option(help="How its outputs are read. Default: the task's.")] = None,
    head_parameter: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER, any number of times.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A file with one label a line, in the output's order.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures a batch. Default 8.")] = None,
    preferred_batch_size: Annotated[
        str | None, typer.Option(help="SIZE,…: the largest that fits goes at once.")
    ] = None,
    max_queue_delay_microseconds: Annotated[
        int | None, typer.Option(min=0, help="How long a picture waits for others. Default 5000.")
    ] = None,
    max_queue_size: Annotated[
        int | None, typer.Option(min=1, help="Pictures that may wait. Default: no limit.")
    ] = None,
    instances: Annotated[int | None, typer.Option(min=1, help="Batches that execute at once. Default 2.")] = None,
    instance_kind: Annotated[InstanceKind | None, typer.Option(help="Where Triton runs them. Default auto.")] = None,
    gpus: Annotated[str | None, typer.Option(help="NUMBER,…: GPUs that get --instances each.")] = None,
    version_policy: Annotated[
        str | None, typer.Option(help="latest:N, specific:N,… or all: what Triton serves. Default latest:1.")
    ] = None,
    warmup: Annotated[
        list[str] | None, typer.Option(help="zero, random or a picture: run before the model is ready. Repeatable.")
    ] = None,
    warmup_batch_size: Annotated[str | None, typer.Option(help="SIZE,… of them. Default the largest.")] = None,
    warmup_count: Annotated[int | None, typer.Option(min=1, help="How often each is run. Default 1.")] = None,
    input: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="NAME:DTYPE:DIMS of a file that isn't ONNX, such as INPUT__0:uint8:224x224x3.")
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(help="NAME:DTYPE:DIMS likewise; of ONNX a NAME: leave others out. Repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A config.pbtxt to use as it is, instead of options.")] = None,
    runner: Annotated[
        Runner | None,
        typer.Option(help="Run it in Triton's Python backend; gpu: decode there, too; gpu-decode: only decode there."),
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Add this version beside those there.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model, all its versions.")] = False,
    store: Store = None,
) -> None:
    """Add a model to the store: an ONNX graph gets its normalisation, other files go in as they are."""
    given = context.params
    existed = (store_at(store) / (name or source)).exists()
    if config is not None:
        model = _add_configured(source, given)
    elif source in PUBLISHED:
        model = _add_published(source, given)
    else:
        model = _add_file(source, given)
    typer.echo(f"added {line(model)} at {model.path.parent.parent}")
    ignored = options.names_given(given, options.SETTINGS)
    if ignored and version is not None and not force and existed:
        typer.echo(f"{model.path.parent.parent / 'config.pbtxt'} stays as it was: {ignored} changed nothing", err=True)


def _add_published(source: str, given: options.Options) -> ModelConfig:
    place, how = _place(given)
    build.refuse_existing(place, given["name"] or source, **how)  # before the download
    proto, recipe = PUBLISHED[source](Home.default().cache)
    return _add_as_asked(given, _recipe(given, recipe), lambda one, how: build.add_model(place, proto, one, **how))


def _add_file(source: str, given: options.Options) -> ModelConfig:
    file = _file(source)
    missing = [f"--{key}" for key in ("name", "task") if given[key] is None]
    if missing:
        raise ConfigurationError(f"{source}: a model file doesn't say it: add {' and '.join(missing)}")
    kind = formats.detect(file)
    base = Recipe(name=given["name"], task=given["task"], batching=_FILE_BATCHING)
    if given["runner"] in {"gpu", "gpu-decode"}:
        base = replace(base, batching=_GPU_BATCHING)
    place, _ = _place(given)
    if kind is formats.Format.ONNX:
        if wrong := options.names_given(given, ("input",)):
            raise ConfigurationError(f"{wrong}: an ONNX file says it itself")
        recipe = replace(_recipe(given, _preprocessed(file, given, base)), outputs=tuple(given["output"] or ()))
        return _add_as_asked(given, recipe, lambda one, how: build.add_onnx(place, file, one, **how))
    recipe = _recipe(given, base)
    if given["version"] is None:  # else config.pbtxt says what runs it
        formats.runtime(kind, given["runner"], source)
    if not given["input"] or not given["output"]:
        raise ConfigurationError(f"{source} is {kind}, whose tensors can't be read here: add --input and --output")
    input_ = options.tensor("--input", given["input"])
    normalises = ("size", "layout", "channel_order", *(("mean", "std") if input_.dtype == "uint8" else ()))
    if wrong := options.names_given(given, normalises):
        raise ConfigurationError(f"{wrong}: {kind} goes in as it is, and takes its {input_.dtype} input as it comes")
    outputs = tuple(options.tensor("--output", text) for text in given["output"])
    typer.echo(f"{source} is {kind}: whether it loads, and has these tensors, was not checked", err=True)
    return _add_as_asked(
        given, recipe, lambda one, how: foreign.add_described(place, file, kind, one, input_, outputs, **how)
    )


def _add_as_asked(
    given: options.Options, recipe: Recipe, add_one: Callable[[Recipe, dict[str, Any]], ModelConfig]
) -> ModelConfig:
    """By itself, or as the second step of an ensemble whose first one decodes."""
    place, how = _place(given)
    if recipe.runner != "gpu-decode":
        return add_one(recipe, how)
    alone = {"version": None, "force": given["force"]}
    return ensemble.add(place, recipe, lambda one: add_one(one, alone), **how)


def _preprocessed(file: Path, given: options.Options, base: Recipe) -> Recipe:
    """``base`` with what the export's preprocessor_config.json says and no option does, which is told."""
    found = preprocessor.find(file)
    if found is None:
        return base
    other_size = options.size(given["size"]) not in {None, found.fields.get("size")}
    decided = {"resize", "resize_shorter_side"} if given["resize"] or other_size else set()
    fields = {key: value for key, value in found.fields.items() if given[key] is None and key not in decided}
    told = ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in fields.items())
    typer.echo(f"from {found.file}: {told or 'nothing'}", err=True)
    for what in found.left_out:
        typer.echo(f"{found.file} wants something that Shoal doesn't do the same: {what}", err=True)
    return replace(base, **fields)


def _shown(value: object) -> str:
    return ",".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)


def _add_configured(source: str, given: options.Options) -> ModelConfig:
    if wrong := options.names_given(given, given.keys() - options.WITH_CONFIG):
        raise ConfigurationError(f"{wrong}: --config says it")
    file = _file(source)
    place, how = _place(given)
    return foreign.add_configured(place, file, given["name"], given["config"], given["labels"], **how)


def _recipe(given: options.Options, base: Recipe) -> Recipe:
    batching = replace(base.batching, **options.batching_fields(given))
    triton = options.triton_settings(given, base.triton, batching.max_batch_size)
    return replace(base, **options.recipe_fields(given), batching=batching, triton=triton)


def _place(given: options.Options) -> tuple[Path, dict[str, Any]]:
    """The store, and what is to happen to what is there."""
    return store_at(given["store"]), {"version": given["version"], "force": given["force"]}


def _file(source: str) -> Path:
    if not Path(source).exists():
        raise ConfigurationError(f"{source!r} is neither a file nor one of {', '.join(PUBLISHED)}")
    return Path(source)
