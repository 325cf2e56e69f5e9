"""``shoal bench``: load on a running service, and what came of it."""

from __future__ import annotations

import os
import platform
import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shoal.cli.bench_rate import tell_rate
from shoal.cli.bench_table import tell
from shoal.cli.bench_ways import PIPELINE, Fleet, Ways
from shoal.cli.calls import ApiKey, Ca, CallPriority, Target, TokenFile
from shoal.cli.inputs import pictures
from shoal.client import Client, Priority
from shoal.client import report as reports
from shoal.client.connection import START, Connection, find_connection
from shoal.client.load.fleet import LoadJob, run_job
from shoal.client.load.generator import LoadSettings
from shoal.client.load.processes import busy_generator
from shoal.errors import ConfigurationError, NotFound, ShoalError, Unavailable
from shoal.modelconfig.model import Task
from shoal.runtime.threads import usable_cores
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.cli.bench_ways import Asked
    from shoal.client.load.generator import LoadRequest, PipelineRequest
    from shoal.client.load.tally import LoadResult
    from shoal.client.results import Image

SAMPLES = Path("samples")
_MAX_PICTURES = 1000


def bench(
    *,
    task: Annotated[
        Task | None, typer.Option(help="What the model does.", show_default=Task.CLASSIFICATION.value)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model's name.", show_default="the task's demo model")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="A pipeline's name, in place of a task and a model.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help=f"Pictures (the first {_MAX_PICTURES:,}), sent in turn.", show_default="samples"
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Closed loop: callers, one request each.")] = 32,
    rate: Annotated[
        float | None,
        typer.Option(help="Open loop: mean Poisson arrivals a second, instead of callers.", show_default="closed loop"),
    ] = None,
    burstiness: Annotated[
        float | None,
        typer.Option(
            metavar="CV",
            help="With --rate: the gaps' coefficient of variation, as Gamma arrivals have it; 1 is Poisson.",
            show_default="1",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Open loop: plays a CSV of time,model,owner. Owners are not used."),
    ] = None,
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Find the highest rate that keeps --latency-slo-ms.")
    ] = False,
    latency_slo_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="With --find-rate: the objective.", show_default=False)
    ] = None,
    quantile: Annotated[
        float | None,
        typer.Option(help="With --find-rate: the share of requests that keeps it.", show_default="0.99"),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            help="Seconds that are measured; of each probe of --find-rate, at least.",
            show_default="10, or the whole trace",
        ),
    ] = None,
    warm_up: Annotated[float, typer.Option(help="Seconds of load before that, not counted.")] = 2.0,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.")] = 30.0,
    upload: Annotated[
        bool, typer.Option("--upload", help="Upload the picture with each request, and count it.")
    ] = False,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--unary",
            help="All calls by stream, or each alone.",
            show_default="as the client does by itself",
        ),
    ] = None,
    priority: CallPriority = Priority.INTERACTIVE,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Load generators; each can use one core.",
            show_default="what the load needs, of half the cores",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the arrivals.", show_default="others each time")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a page with plots, and its figures as JSON, to this folder."),
    ] = None,
    target: Target = None,
    api_key: ApiKey = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Load a running service and measure it. Ctrl-C prints what there is.

    Exit code 1 if any request failed, or any answer of a pipeline lacks a part.
    """
    ways = Ways(rate, burstiness, trace, find_rate, latency_slo_ms, quantile, report is not None)
    settings = ways.settings(
        LoadSettings(
            concurrency,
            duration_seconds=10.0 if duration is None else duration,
            warm_up_seconds=warm_up,
            timeout_seconds=timeout,
            seed=seed,
            record=report is not None,
        ),
        whole=duration is None,
    )
    asked = ways.asked(task, model, pipeline)
    fleet = Fleet(processes, streams=stream is not False, upload=upload)
    at_once = fleet.processes(settings)
    if at_once > concurrency and not (settings.open_loop or find_rate):
        raise ConfigurationError(f"{at_once} processes need {at_once} callers or more: raise --concurrency")
    files = pictures([_folder(images)])[:_MAX_PICTURES]
    connection = find_connection(target, api_key, Home.default(), ca, token_file)
    if report is not None:
        reports.prepare(report)
    began = _now()
    told = {"task": asked.task or PIPELINE, "model": asked.name, "images": len(files), "upload": upload}
    told |= {"processes": processes if find_rate else at_once}  # a search: None, if as many as each probe needs
    told |= {"stream": stream, "priority": priority} | _plain(settings)
    if ways.played is not None:
        typer.echo(f"shoal: {ways.note()}", err=True)
    try:
        requests = _prepare(connection, files, asked, upload, timeout)
        job = LoadJob(connection, requests, settings, priority, stream)
        if find_rate:
            raise typer.Exit(tell_rate(job, fleet, ways.objective(), measure, told, as_json=as_json))
        result = measure(job, at_once)
    except Unavailable as error:
        raise Unavailable(f"{error}; is it up? {START}") from None
    tell(result, told, as_json=as_json)
    if limit := busy_generator(result, at_once, settings.rate):
        typer.echo(f"shoal: this may be the load generator's limit: {limit}", err=True)
    if report is not None:
        folder = str(images) if images else str(SAMPLES)
        page = reports.write(report, result, began | _about(told | {"target": connection.target}, asked, folder))
        typer.echo(f"shoal: the report is {page}", err=True)
    if result.failed.codes or (result.pipeline is not None and result.pipeline.lacking):
        raise typer.Exit(1)


def _plain(settings: LoadSettings) -> dict[str, Any]:
    """The settings that are told."""
    told = asdict(settings) | {"trace": None if settings.trace is None else str(settings.trace)}
    return {name: value for name, value in told.items() if name not in {"record", "part", "parts"}}


def _folder(images: Path | None) -> Path:
    if images is None and not SAMPLES.is_dir():
        raise ConfigurationError("--images DIR: there is no folder 'samples' here to take pictures from")
    folder = images or SAMPLES
    if not folder.exists():
        raise ConfigurationError(f"--images {folder}: no such folder")
    return folder


def _prepare(
    connection: Connection, files: list[Path], asked: Asked, upload: bool, timeout_seconds: float
) -> tuple[LoadRequest | PipelineRequest, ...]:
    """The requests: with the pictures themselves, or with references to pictures that are uploaded now."""
    with Client(connection.target, **connection.options()) as client:
        client.connect()
        sent: Sequence[Image] = [file.read_bytes() for file in files] if upload else client.upload_many(files)
        if asked.task is None:
            _find_pipeline(client, asked.name, sent[0], timeout_seconds)
    return tuple(map(asked.request, sent))


def _find_pipeline(client: Client, name: str, image: Image, timeout_seconds: float) -> None:
    """Asks it once.

    Raises:
        NotFound: the service has none of that name.
    """
    try:
        client.analyze(image, name, timeout_seconds=timeout_seconds)
    except NotFound:
        raise NotFound(
            f"--pipeline {name}: no such pipeline is served; the service file names those that are"
        ) from None
    except ShoalError:
        pass  # the load tells


def measure(job: LoadJob, processes: int) -> LoadResult:
    """Runs a load, with a bar for those who wait."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    warm_up, whole = job.settings.warm_up_seconds, job.settings.warm_up_seconds + job.settings.duration_seconds
    shown = bar.add_task("warming up" if warm_up else "measuring", total=whole)

    def advance(elapsed: float) -> None:
        bar.update(shown, completed=elapsed, description="warming up" if elapsed < warm_up else "measuring")

    with bar:
        return run_job(job, processes, advance)


def _now() -> dict[str, Any]:
    """What the machine is like before the load."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": usable_cores(), "load_average": round(os.getloadavg()[0], 2)},
    }


def _about(settings: dict[str, Any], asked: Asked, images: str) -> dict[str, Any]:
    """What a report says of the run. The command has no key: whoever repeats it has one of their own."""
    options = {
        "--target": settings["target"],
        **_whom(asked, settings),
        "--images": images,
        **_way(settings),
        "--duration": settings["duration_seconds"],
        "--warm-up": settings["warm_up_seconds"],
        "--timeout": settings["timeout_seconds"],
        "--processes": settings["processes"],
        **({} if settings["priority"] == Priority.INTERACTIVE else {"--priority": settings["priority"]}),
        **({} if settings["seed"] is None else {"--seed": settings["seed"]}),
    }
    flags = {"--upload": settings["upload"], "--stream": settings["stream"], "--unary": settings["stream"] is False}
    words = ["shoal", "bench", *(str(word) for option in options.items() for word in option)]
    return {
        "settings": settings,
        "command": shlex.join([*words, *(flag for flag, given in flags.items() if given)]),
        "versions": {"shoal": version("shoal"), "python": platform.python_version()},
    }


def _whom(asked: Asked, settings: dict[str, Any]) -> dict[str, Any]:
    """The options that say whom requests ask."""
    if asked.task is None:
        return {"--pipeline": asked.name}
    return {"--task": asked.task} | ({"--model": asked.name} if settings["trace"] is None else {})


def _way(settings: dict[str, Any]) -> dict[str, Any]:
    """The options that say when requests leave."""
    if settings["trace"] is not None:
        return {"--trace": settings["trace"]}
    if settings["rate"] is None:
        return {"--concurrency": settings["concurrency"]}
    bursts = {} if settings["burstiness"] == 1 else {"--burstiness": settings["burstiness"]}
    return {"--rate": settings["rate"]} | bursts
