"""What ``shoal classify``, ``detect`` and ``segment`` share: their options, and the calls that these ask for."""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer
from rich.console import Console

from shoal.cli.inputs import pictures
from shoal.cli.report import record, table
from shoal.cli.terminal import shown_json
from shoal.client import Client, Outcome, PictureRegion, Priority
from shoal.client.connection import START, find_connection
from shoal.errors import ConfigurationError, InvalidRequest, Unavailable
from shoal.modelconfig.model import Task
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shoal.client import Result

    Saver = Callable[[Outcome[Result]], None]
    """Writes what came of one picture; what failed is nothing to it."""

DEFAULT_MODELS = {Task.CLASSIFICATION: "efficientnet-lite0", Task.DETECTION: "pp-ocrv4-det"}
PIPE_COLUMNS = 160

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
TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="SHOAL_TOKEN_FILE",
        metavar="FILE",
        help="In place of a key: a file with an issuer's token, read anew as the token ends.",
        show_default=False,
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
CallPriority: TypeAlias = Annotated[
    Priority, typer.Option("--priority", help="bulk: makes room for others; fills what interactive calls leave.")
]
_Images: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...",
        help="Pictures, or folders: JPEG, PNG or WebP.",
        show_default=False,
        readable=False,  # one that can't be read fails alone
    ),
]
_Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object a picture and line.")]
_Timeout: TypeAlias = Annotated[float, typer.Option(min=0.001, help="Seconds for one picture, upload included.")]
_Concurrency: TypeAlias = Annotated[int, typer.Option(min=1, help="Pictures in flight.")]


_AskedRegion: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,WIDTH,HEIGHT", help="Only this part of each picture, in [0, 1].", show_default="the whole picture"
    ),
]


@dataclass(kw_only=True)
class Calls:
    """A call for each of the pictures named; the arguments are options of each command.

    Raises:
        ConfigurationError: no picture is named, or a folder can't be read, or the region is none.
    """

    images: _Images
    as_json: _Json = False
    target: Target = None
    api_key: ApiKey = None
    token_file: TokenFile = None
    ca: Ca = None
    timeout: _Timeout = 30.0
    concurrency: _Concurrency = 32
    priority: CallPriority = Priority.INTERACTIVE
    region: _AskedRegion = None
    files: list[Path] = field(init=False)
    _part: PictureRegion | None = field(init=False)

    def __post_init__(self) -> None:
        self.files = pictures(self.images)
        self._part = _region(self.region)

    def run(self, task: Task, model: str, savers: Sequence[Saver] = (), **settings: Any) -> None:
        """Calls, and shows what came of each picture.

        Args:
            task: What the model does.
            model: Its name.
            savers: Get each outcome before it is shown.
            settings: More of ``Client.map``, such as ``top_k``.

        Raises:
            Exit: with 1, if a picture failed.
            Unavailable: nobody answers at the target, and no JSON was asked for.
        """
        if not self._show(self._outcomes(task, model, savers, settings)):
            raise typer.Exit(1)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the service that the options name, connected.

        Raises:
            Unavailable: nobody answers there.
        """
        to = find_connection(self.target, self.api_key, Home.default(), self.ca, self.token_file)
        with Client(to.target, **to.options(), timeout_seconds=self.timeout) as client:
            try:
                client.connect(timeout_seconds=self.timeout)
            except Unavailable as error:
                raise Unavailable(f"{error}; is it up? {START}") from None
            yield client

    @property
    def part(self) -> PictureRegion | None:
        """What ``--region`` names."""
        return self._part

    def _outcomes(
        self, task: Task, model: str, savers: Sequence[Saver], settings: dict[str, Any]
    ) -> Iterator[Outcome[Result]]:
        with ExitStack() as stack:
            try:
                client = stack.enter_context(self.client())
            except Unavailable as error:
                yield from self._unanswered(error)
                return
            outcomes = client.map(
                self.files,
                model,
                task=task,
                ordered=True,
                concurrency=self.concurrency,
                priority=self.priority,
                region=self._part,
                progress=self._shows_progress(),
                **settings,
            )
            for outcome in outcomes:
                for save in savers:
                    save(outcome)
                yield outcome

    def _unanswered(self, away: Unavailable) -> Iterator[Outcome[Result]]:
        """With ``--json`` each picture has its line even where nobody answers at the target."""
        if not self.as_json:
            raise away from None
        yield from (Outcome(index, image, None, away) for index, image in enumerate(self.files))

    def _show(self, outcomes: Iterator[Outcome[Result]]) -> bool:
        """Whether none failed."""
        if self.as_json:
            failed = False
            for outcome in outcomes:
                failed |= outcome.error is not None
                typer.echo(shown_json(record(outcome)))
            return not failed
        done = list(outcomes)
        # A pipe has no width of its own, and cutting labels would help nobody.
        Console(width=None if Console().is_terminal else PIPE_COLUMNS).print(table(done))
        return not any(outcome.error for outcome in done)

    def _shows_progress(self) -> bool:
        """Whether a bar would be seen and of use."""
        return not self.as_json and len(self.files) > 1 and Console(stderr=True).is_terminal


def _region(text: str | None) -> PictureRegion | None:
    if text is None:
        return None
    try:
        x, y, width, height = map(float, text.split(","))
        region = PictureRegion(x, y, width, height)
        region.check("--region")
    except (ValueError, InvalidRequest) as error:
        reason = f": {error}" if isinstance(error, InvalidRequest) else ""
        text = f"--region {text!r}: expected X,Y,WIDTH,HEIGHT in [0, 1], such as 0.25,0.1,0.5,0.5{reason}"
        raise ConfigurationError(text) from None
    return region


def with_call_options(command: Callable[..., None]) -> Callable[..., None]:
    """Makes ``command(calls, *, model, …)`` one with the options of ``Calls``, which come after ``--model``."""
    hints = get_type_hints(Calls, include_extras=True)
    shared = [
        each.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in inspect.signature(Calls).parameters.items()
    ]
    images, *options = shared
    _, model, *own = inspect.signature(command, eval_str=True).parameters.values()

    def run(**given: Any) -> None:
        calls = Calls(**{each.name: given.pop(each.name) for each in shared})
        command(calls, **given)

    parameters = [images, model, *options, *own]
    run.__doc__ = command.__doc__
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def drawer_for(folder: Path | None) -> Saver:
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
