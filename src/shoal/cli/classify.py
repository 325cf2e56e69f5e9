"""``shoal classify`` and ``shoal detect``: pictures in, a table or a line of JSON a picture out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import Console

from shoal.cli.report import record, table
from shoal.cli.terminal import shown_json
from shoal.client import Client, Outcome
from shoal.client.connection import START, find_connection
from shoal.errors import ConfigurationError, Unavailable
from shoal.modelconfig.model import Task
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shoal.client.connection import Connection

DEFAULT_MODELS = {Task.CLASSIFICATION: "efficientnet-lite0", Task.DETECTION: "pp-ocrv4-det"}
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_PIPE_COLUMNS = 160

Images: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...",
        help="Pictures, or folders: JPEG, PNG or WebP.",
        show_default=False,
        readable=False,  # one that can't be read fails alone
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object a picture and line.")]
Target: TypeAlias = Annotated[
    str | None,
    typer.Option(envvar="SHOAL_TARGET", help="HOST:PORT or https://HOST[:PORT].", show_default="the local service's"),
]
ApiKey: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="SHOAL_API_KEY",
        help="Prefer the variable: a command line shows in `ps`.",
        show_default="the local service's",
    ),
]
Ca: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        envvar="SHOAL_CA",
        metavar="PEM",
        help="With TLS: the authorities to trust.",
        show_default="the public ones, or the local service's",
    ),
]
Timeout: TypeAlias = Annotated[float, typer.Option(min=0.001, help="Seconds for one picture, upload included.")]
Concurrency: TypeAlias = Annotated[int, typer.Option(min=1, help="Pictures in flight.")]


def classify(
    images: Images,
    *,
    model: Annotated[str, typer.Option(help="The model's name.")] = DEFAULT_MODELS[Task.CLASSIFICATION],
    as_json: Json = False,
    target: Target = None,
    api_key: ApiKey = None,
    ca: Ca = None,
    timeout: Timeout = 30.0,
    concurrency: Concurrency = 32,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Classes a picture.")] = 5,
) -> None:
    """Label pictures. Exit code 1 if any failed."""
    found = pictures(images)

    def ask(client: Client) -> Iterator[Outcome]:
        return client.map(
            found, model, ordered=True, concurrency=concurrency, progress=shows_progress(found, as_json), top_k=top_k
        )

    report(outcomes_of(find_connection(target, api_key, Home.default(), ca), timeout, found, ask, as_json), as_json)


def detect(
    images: Images,
    *,
    model: Annotated[str, typer.Option(help="The model's name.")] = DEFAULT_MODELS[Task.DETECTION],
    as_json: Json = False,
    target: Target = None,
    api_key: ApiKey = None,
    ca: Ca = None,
    timeout: Timeout = 30.0,
    concurrency: Concurrency = 32,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave boxes below it out.", show_default="the model's")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save each picture with its boxes here.", show_default=False)
    ] = None,
) -> None:
    """Find boxes in pictures. Exit code 1 if any failed."""
    found = pictures(images)
    drawer = drawer_for(draw)

    def ask(client: Client) -> Iterator[Outcome]:
        outcomes = client.map(
            found,
            model,
            task=Task.DETECTION,
            ordered=True,
            concurrency=concurrency,
            progress=shows_progress(found, as_json),
            score_threshold=score_threshold,
        )
        for outcome in outcomes:
            drawer(outcome)
            yield outcome

    report(outcomes_of(find_connection(target, api_key, Home.default(), ca), timeout, found, ask, as_json), as_json)


def pictures(named: Sequence[Path]) -> list[Path]:
    """The pictures among ``named``: files as they are, there or not, and what lies in folders, sorted.

    Raises:
        ConfigurationError: there is none, or a folder can't be read.
    """
    found: list[Path] = []
    for path in named:
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it can't tell
            if not os.access(path, os.R_OK | os.X_OK):
                raise ConfigurationError(f"{path}: the folder can't be read: permission denied")
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
        else:
            found.append(path)
    if not found:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise ConfigurationError(f"no pictures ({suffixes}) in {', '.join(map(str, named))}")
    return found


def outcomes_of(
    connection: Connection,
    timeout: float,
    found: Sequence[Path],
    ask: Callable[[Client], Iterator[Outcome]],
    as_json: bool,
) -> Iterator[Outcome]:
    """What becomes of each of ``found``; with ``as_json`` also where nobody answers at the target."""
    key, trust = connection.api_key, connection.credentials()
    with Client(connection.target, api_key=key, credentials=trust, timeout_seconds=timeout) as client:
        try:
            client.connect(timeout_seconds=timeout)
        except Unavailable as error:
            away = Unavailable(f"{error}; is it up? {START}")
            if not as_json:
                raise away from None
            yield from (Outcome(index, image, None, away) for index, image in enumerate(found))
            return
        yield from ask(client)


def report(outcomes: Iterator[Outcome], as_json: bool) -> None:
    """Shows outcomes; exits with 1 if one failed."""
    failed = False
    if as_json:
        for outcome in outcomes:
            failed |= outcome.error is not None
            typer.echo(shown_json(record(outcome)))
    else:
        done = list(outcomes)
        failed = any(outcome.error for outcome in done)
        # A pipe has no width of its own, and cutting labels would help nobody.
        Console(width=None if Console().is_terminal else _PIPE_COLUMNS).print(table(done))
    if failed:
        raise typer.Exit(1)


def shows_progress(found: Sequence[Path], as_json: bool) -> bool:
    """Whether a bar would be seen and of use."""
    return not as_json and len(found) > 1 and Console(stderr=True).is_terminal


def drawer_for(folder: Path | None) -> Callable[[Outcome], None]:
    """What draws each outcome into ``folder``.

    Raises:
        ConfigurationError: OpenCV is not installed, or the folder can't be made.
    """
    if folder is None:
        return lambda _outcome: None
    try:
        from shoal.cli.draw import Drawer  # OpenCV isn't part of the base install
    except ModuleNotFoundError:
        raise ConfigurationError("--draw needs OpenCV: pip install opencv-python-headless") from None
    return Drawer(folder)
