"""``shoal model``: what is in the model store.

May use: cli, errors, modelconfig, modelstore, modelstore/making, modelstore/publishing, runtime, service, triton.
"""

# ruff: noqa: ARG001, TC001 - typer reads the parameters of `add`, and `add` them from the context
from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shoal.cli.model import options
from shoal.cli.model.transfer import pull, push
from shoal.cli.terminal import shown
from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.fault import Fault, Severity
from shoal.modelconfig.model import ModelConfig, Resize, ResizeFilter, Task
from shoal.modelstore import formats, repository, trial
from shoal.modelstore.check import check as check_model
from shoal.modelstore.compare import compare
from shoal.modelstore.making import build, foreign, preprocessor
from shoal.modelstore.making.published import PUBLISHED
from shoal.modelstore.making.recipe import Recipe
from shoal.modelstore.triton_settings import InstanceKind
from shoal.runtime.endpoint import Endpoint
from shoal.service.home import Home

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Add, list, check, push and pull models.")
app.command()(push)
app.command()(pull)

Store = Annotated[Path | None, typer.Option(help="The model store; by default `models` in Shoal's home.")]

_FILE_BATCHING = BatchingSettings(max_batch_size=8, max_queue_delay_microseconds=5000, instance_count=2)


@app.command()
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
        Literal["python"] | None, typer.Option(help="Run it in Triton's Python backend. Default: in ONNX Runtime's.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Add this version beside those there.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model, all its versions.")] = False,
    store: Store = None,
) -> None:
    """Add a model to the store: an ONNX graph gets its normalisation, other files go in as they are."""
    given = context.params
    existed = (_store(store) / (name or source)).exists()
    if config is not None:
        model = _add_configured(source, given)
    elif source in PUBLISHED:
        model = _add_published(source, given)
    else:
        model = _add_file(source, given)
    typer.echo(f"added {_line(model)} at {model.path.parent.parent}")
    ignored = options.names_given(given, options.SETTINGS)
    if ignored and version is not None and not force and existed:
        typer.echo(f"{model.path.parent.parent / 'config.pbtxt'} stays as it was: {ignored} changed nothing", err=True)


@app.command("list")
def list_models(store: Store = None) -> None:
    """List the models that can be served; broken ones go to standard error."""
    models, faults = repository.scan(_store(store))
    for model in models.values():
        typer.echo(_line(model))
    for fault in faults:
        typer.echo(shown(f"broken: {fault}"), err=True)
    if not models and not faults:
        typer.echo(f"{_store(store)} holds no models; `shoal model add {next(iter(PUBLISHED))}` adds one", err=True)


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="A model; all of them if left out.")] = None,
    triton: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Compare with what this Triton serves, over gRPC.")
    ] = None,
    run: Annotated[bool, typer.Option(help="Run a few pictures, as a worker does: here, or at that Triton.")] = True,
    store: Store = None,
) -> None:
    """Name every fault of a model, file and field; exit 1 if one can't be served, or is served otherwise."""
    place = _store(store)
    names = repository.names(place) if name is None else [name]
    faults = {model: check_model(place, model, run=run and triton is None) for model in names}
    if triton is not None:
        asyncio.run(_compare(place, Endpoint.parse(triton), faults, run=run))
    broken = False
    for model, found in faults.items():
        for fault in found:
            typer.echo(shown(f"{fault.severity}: {fault}"))
        wrong = any(fault.severity is Severity.ERROR for fault in found)
        typer.echo(f"{model}: {'broken' if wrong else 'good'}")
        broken |= wrong
    if broken:
        raise typer.Exit(1)


async def _compare(place: Path, endpoint: Endpoint, faults: dict[str, list[Fault]], *, run: bool) -> None:
    """Adds what differs, and with ``run`` what comes of trying what doesn't."""
    from shoal.triton.client import TritonClient  # tritonclient takes 0.3 s to import

    async with TritonClient(str(endpoint)) as server:
        for model, found in faults.items():
            report = await compare(place / model, server)
            if run and not report.errors and all(fault.severity is not Severity.ERROR for fault in found):
                await trial.through(server, place / model, report)
            found.extend(report.faults)


def _store(path: Path | None) -> Path:
    return Home.default().models if path is None else path


def _add_published(source: str, given: options.Options) -> ModelConfig:
    place, how = _place(given)
    build.refuse_existing(place, given["name"] or source, **how)  # before the download
    proto, recipe = PUBLISHED[source](Home.default().cache)
    return build.add_model(place, proto, _recipe(given, recipe), **how)


def _add_file(source: str, given: options.Options) -> ModelConfig:
    file = _file(source)
    missing = [f"--{key}" for key in ("name", "task") if given[key] is None]
    if missing:
        raise ConfigurationError(f"{source}: a model file doesn't say it: add {' and '.join(missing)}")
    kind = formats.detect(file)
    base = Recipe(name=given["name"], task=given["task"], batching=_FILE_BATCHING)
    place, how = _place(given)
    if kind is formats.Format.ONNX:
        if wrong := options.names_given(given, ("input",)):
            raise ConfigurationError(f"{wrong}: an ONNX file says it itself")
        recipe = replace(_recipe(given, _preprocessed(file, given, base)), outputs=tuple(given["output"] or ()))
        return build.add_onnx(place, file, recipe, **how)
    recipe = _recipe(given, base)
    if not given["input"] or not given["output"]:
        raise ConfigurationError(f"{source} is {kind}, whose tensors can't be read here: add --input and --output")
    input_ = options.tensor("--input", given["input"])
    normalises = ("runner", "size", "layout", "channel_order", *(("mean", "std") if input_.dtype == "uint8" else ()))
    if wrong := options.names_given(given, normalises):
        raise ConfigurationError(f"{wrong}: {kind} goes in as it is, and takes its {input_.dtype} input as it comes")
    outputs = tuple(options.tensor("--output", text) for text in given["output"])
    typer.echo(f"{source} is {kind}: whether it loads, and has these tensors, was not checked", err=True)
    return foreign.add_described(place, file, kind, recipe, input_, outputs, **how)


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
    return _store(given["store"]), {"version": given["version"], "force": given["force"]}


def _file(source: str) -> Path:
    if not Path(source).exists():
        raise ConfigurationError(f"{source!r} is neither a file nor one of {', '.join(PUBLISHED)}")
    return Path(source)


def _line(model: ModelConfig) -> str:
    shape = "x".join(map(str, model.input.shape))
    return (
        f"{model.name} version {model.version}: {model.task}, {model.input.dtype} {shape}, "
        f"{len(model.labels)} label{'' if len(model.labels) == 1 else 's'}, batches of {model.batching.max_batch_size}"
    )
