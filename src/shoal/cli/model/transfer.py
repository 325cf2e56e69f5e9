"""``shoal model push`` and ``shoal model pull``."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from shoal.cli.terminal import shown
from shoal.errors import ConfigurationError, NotFound
from shoal.modelstore.publishing.pull import pull as pull_model
from shoal.modelstore.publishing.push import push as push_model
from shoal.modelstore.publishing.remote import Remote
from shoal.service import spec
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from rich.progress import TaskID

LocalStore: TypeAlias = Annotated[Path | None, typer.Option(help="The local store. Default: `models` in Shoal's home.")]
S3Endpoint: TypeAlias = Annotated[
    str | None, typer.Option(metavar="URL", envvar="SHOAL_MODELS_ENDPOINT", help="The S3 API's address. Default: AWS.")
]
Region: TypeAlias = Annotated[str, typer.Option(help="Of the bucket.")]
CredentialsFile: TypeAlias = Annotated[
    str | None,
    typer.Option(help="JSON with access_key_id and secret_access_key, mode 0600. Default: the cloud's usual chain."),
]
_URL = "s3://bucket[/prefix], gs://…, az://… or file:///…"


def push(
    words: Annotated[list[str], typer.Argument(metavar="MODEL... URL", help=f"Models, and where to: {escape(_URL)}")],
    *,
    again: Annotated[bool, typer.Option("--again", help="Send everything, to mend a damaged upload.")] = False,
    endpoint: S3Endpoint = None,
    region: Region = "us-east-1",
    credentials_file: CredentialsFile = None,
    store: LocalStore = None,
) -> None:
    """Publish models: files first, then a manifest a version. What is there already isn't sent again."""
    *models, url = words
    if not models or "://" not in url:
        raise ConfigurationError(f"expected one model or more and a URL: {_URL}")
    remote = _remote(url, endpoint, region, credentials_file)
    place = store or Home.default().models

    async def run() -> None:
        for model in dict.fromkeys(models):
            with _bar(model) as bar:
                versions = await push_model(place, model, remote, bar, again=again)
            told = f"version{'s' * (len(versions) > 1)} {', '.join(map(str, versions))}"
            typer.echo(f"{model}: published {told}" if versions else f"{model}: nothing new")

    asyncio.run(run())


def pull(
    url: Annotated[str, typer.Argument(metavar="URL", help=f"Where from: {escape(_URL)}")],
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Default: all of them.")] = None,
    *,
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Not only those that version_policy serves.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite what differs; remove what isn't published.")
    ] = False,
    endpoint: S3Endpoint = None,
    region: Region = "us-east-1",
    credentials_file: CredentialsFile = None,
    store: LocalStore = None,
) -> None:
    """Bring published models into a store, each checked and whole. What is there already isn't fetched again.

    Of several, one that can't be had is told and leaves the others alone; the exit code is then 1.
    """
    remote = _remote(url, endpoint, region, credentials_file)
    place = store or Home.default().models

    async def run() -> None:
        wanted = await _published(remote, url, models or ())
        refused = [model for model, marks in wanted.items() if not await bring(model, marks, alone=len(wanted) == 1)]
        if refused:
            raise typer.Exit(1)

    async def bring(model: str, published: Collection[int], *, alone: bool) -> bool:
        with _bar(model) as bar:
            try:
                changed = await pull_model(remote, model, published, place, bar, every=all_versions, force=force)
            except (ConfigurationError, NotFound) as error:
                if alone:
                    raise
                typer.echo(shown(f"shoal: {model}: {error}"), err=True)
                return False
        typer.echo(f"{model}: pulled to {place / model}" if changed else f"{model}: nothing new")
        return True

    asyncio.run(run())


async def _published(remote: Remote, url: str, models: Sequence[str]) -> dict[str, Collection[int]]:
    """Each of ``models``, or all where none is named, and its versions.

    Raises:
        NotFound: one isn't there, or none is.
    """
    published = await remote.published()
    missing = [model for model in models if model not in published]
    if missing or not published:
        there = ", ".join(sorted(published)) or "no model"
        raise NotFound(f"{url} has no model {', '.join(missing)}; there: {there}" if missing else f"{url}: {there}")
    return {model: published[model] for model in models or sorted(published)}


def _remote(url: str, endpoint: str | None, region: str, credentials_file: str | None) -> Remote:
    try:
        settings = spec.ObjectStore(
            url=url, endpoint=endpoint, region=region, credentials_file=credentials_file, managed=False
        )
    except ValidationError as error:
        fault = error.errors()[0]
        where = f"--{fault['loc'][0]}" if fault["loc"] and fault["loc"][0] != "url" else "URL"
        raise ConfigurationError(f"{where}: {fault['msg'].removeprefix('Value error, ')}") from None
    return Remote.open(settings)


class _Shown:
    """Shows a progress bar; see ``shoal.modelstore.publishing.remote.Progress``."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar = bar
        self._task = task
        self._total = 0

    def expect(self, size: int) -> None:
        self._total += size
        self._bar.update(self._task, total=self._total, visible=self._total > 0)

    def advance(self, size: int) -> None:
        self._bar.advance(self._task, size)


@contextmanager
def _bar(model: str) -> Iterator[_Shown]:
    """A bar on standard error, gone when all is done; nothing where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield _Shown(bar, bar.add_task(model, visible=False))
