"""``shoal model``: what is in the model store."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shoal.batching.settings import BatchingSettings
from shoal.cli.model_transfer import pull, push
from shoal.errors import ConfigurationError
from shoal.home import Home
from shoal.modelstore import build, repository
from shoal.modelstore.check import check as check_model
from shoal.modelstore.config import ModelConfig, Resize, Task  # noqa: TC001 - typer reads them
from shoal.modelstore.fault import Severity
from shoal.modelstore.published import PUBLISHED
from shoal.modelstore.recipe import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Add, list, check, push and pull models.")
app.command()(push)
app.command()(pull)

Store = Annotated[Path | None, typer.Option(help="The model store; by default `models` in Shoal's home.")]

_FILE_BATCHING = BatchingSettings(max_batch_size=8, max_queue_delay_microseconds=5000, instance_count=2)


@app.command()
def add(
    source: Annotated[str, typer.Argument(help=f"An ONNX file, or one of: {', '.join(PUBLISHED)}.")],
    *,
    name: Annotated[str | None, typer.Option(help="What clients call it.")] = None,
    task: Annotated[Task | None, typer.Option(help="What it answers.")] = None,
    mean: Annotated[str | None, typer.Option(help="Of pixels in [0, 255]: one number or R,G,B. Default 0.")] = None,
    std: Annotated[str | None, typer.Option(help="The graph gets (x - mean) / std. Default 255.")] = None,
    channel_order: Annotated[Literal["rgb", "bgr"] | None, typer.Option(help="As trained. Default rgb.")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH, where the model leaves it open.")] = None,
    resize: Annotated[Resize | None, typer.Option(help="How pictures come to that size. Default stretch.")] = None,
    resize_shorter_side: Annotated[int | None, typer.Option(help="Pixels before the crop. Default size x 8/7.")] = None,
    head: Annotated[str | None, typer.Option(help="How its outputs are read. Default: the task's.")] = None,
    head_parameter: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER, any number of times.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A file with one label a line, in the output's order.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures a batch. Default 8.")] = None,
    max_queue_delay_microseconds: Annotated[
        int | None, typer.Option(min=0, help="How long a picture waits for others. Default 5000.")
    ] = None,
    instances: Annotated[int | None, typer.Option(min=1, help="Batches that execute at once. Default 2.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Add this version beside those there.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model, all its versions.")] = False,
    store: Store = None,
) -> None:
    """Add a model to the store, with its normalisation moved into the graph."""
    given = _given(
        name=name,
        task=task,
        mean=_triple("--mean", mean),
        std=_triple("--std", std),
        channel_order=channel_order,
        size=_size(size),
        resize=resize,
        resize_shorter_side=resize_shorter_side,
        head=head,
        head_parameters=_head_parameters(head_parameter),
        labels=_labels(labels),
    )
    batching = _given(
        max_batch_size=max_batch_size,
        # What the model prefers is of no use with another maximum.
        preferred_batch_size=None if max_batch_size is None else (),
        max_queue_delay_microseconds=max_queue_delay_microseconds,
        instance_count=instances,
    )
    place = _store(store)
    if source in PUBLISHED:
        build.refuse_existing(place, name or source, version=version, force=force)  # before the download
        proto, recipe = PUBLISHED[source](Home.default().cache)
        recipe = replace(recipe, **given, batching=replace(recipe.batching, **batching))
        model = build.add_model(place, proto, recipe, version=version, force=force)
    else:
        recipe = _file_recipe(source, given, replace(_FILE_BATCHING, **batching))
        model = build.add_onnx(place, Path(source), recipe, version=version, force=force)
    typer.echo(f"added {_line(model)} at {model.path.parent.parent}")


@app.command("list")
def list_models(store: Store = None) -> None:
    """List the models that can be served; broken ones go to standard error."""
    models, faults = repository.scan(_store(store))
    for model in models.values():
        typer.echo(_line(model))
    for fault in faults:
        typer.echo(f"broken: {fault}", err=True)
    if not models and not faults:
        typer.echo(f"{_store(store)} holds no models; `shoal model add {next(iter(PUBLISHED))}` adds one", err=True)


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="A model; all of them if left out.")] = None, store: Store = None
) -> None:
    """Name every fault of a model, file and field; exit 1 if one can't be served."""
    place = _store(store)
    broken = False
    for model in repository.names(place) if name is None else [name]:
        faults = check_model(place, model)
        for fault in faults:
            typer.echo(f"{fault.severity}: {fault}")
        wrong = any(fault.severity is Severity.ERROR for fault in faults)
        typer.echo(f"{model}: {'broken' if wrong else 'good'}")
        broken |= wrong
    if broken:
        raise typer.Exit(1)


def _store(path: Path | None) -> Path:
    return Home.default().models if path is None else path


def _given(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - options of several types
    return {key: value for key, value in options.items() if value is not None}


def _file_recipe(source: str, given: dict[str, Any], batching: BatchingSettings) -> Recipe:
    if not Path(source).exists():
        raise ConfigurationError(f"{source!r} is neither a file nor one of {', '.join(PUBLISHED)}")
    missing = [f"--{key}" for key in ("name", "task") if key not in given]
    if missing:
        raise ConfigurationError(f"{source}: an ONNX file doesn't say it: add {' and '.join(missing)}")
    return Recipe(**given, batching=batching)


def _triple(option: str, text: str | None) -> tuple[float, float, float] | None:
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


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not sides:
        raise ConfigurationError(f"--size {text}: expected HEIGHTxWIDTH, such as 224x224")
    return int(sides[1]), int(sides[2])


def _head_parameters(pairs: list[str] | None) -> dict[str, float] | None:
    parameters = {}
    for pair in pairs or ():
        key, _, number = pair.partition("=")
        try:
            parameters[key] = float(number)
        except ValueError as error:
            raise ConfigurationError(f"--head-parameter {pair}: expected NAME=NUMBER") from error
    return parameters or None


def _labels(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--labels {path}: can't be read: {error}") from error


def _line(model: ModelConfig) -> str:
    shape = "x".join(map(str, model.input.shape))
    return (
        f"{model.name} version {model.version}: {model.task}, {model.input.dtype} {shape}, "
        f"{len(model.labels)} label{'' if len(model.labels) == 1 else 's'}, batches of {model.batching.max_batch_size}"
    )
