"""``shoal explain``: what became of one recent request, and where its time went."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console

from shoal.cli.story import timeline
from shoal.cli.terminal import shown
from shoal.errors import ConfigurationError, InvalidRequest, Unavailable
from shoal.explain.explanation import explain as bring_together
from shoal.explain.inquiry import Told, ask, every_address
from shoal.explain.story import heading, sentences
from shoal.local import state
from shoal.pictures.reference import canonical_uuid
from shoal.runtime.endpoint import Endpoint
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.explain.explanation import Explanation
    from shoal.explain.views import Memory

_PIPE_COLUMNS = 160
_COMPONENTS = frozenset({"batcher", "worker"})


def explain(
    image_uuid: Annotated[str, typer.Argument(metavar="UUID", help="The picture's.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The metrics address of a batcher or worker, or a name with many; again for more.",
            show_default="those of the service that runs here",
        ),
    ] = None,
) -> None:
    """Say why a recent request's batch closed, how many shared it, and where its time went. Exit code 1: not known."""
    try:
        wanted = canonical_uuid(image_uuid)
    except InvalidRequest as error:
        raise ConfigurationError(str(error)) from None
    told = asyncio.run(_ask(wanted, at))
    for part, reason in told.silent.items():
        typer.echo(f"shoal: {part} was not heard: {reason}", err=True)
    found = bring_together(told.answers)
    if as_json:
        typer.echo(json.dumps(_record(wanted, found, told), indent=2))
    elif found:
        _print(wanted, found)
    if not found:
        raise Unknown(wanted, told)


class Unknown(Unavailable):
    """No part knows the uuid."""

    def __init__(self, image_uuid: str, told: Told) -> None:
        reach = "; ".join(f"{part} {_reach(answer.memory)}" for part, answer in told.answers.items())
        aside = "what the router refuses comes to none of them"
        super().__init__(f"no part remembers {image_uuid} ({reach or 'none answered'}); {aside}")


async def _ask(image_uuid: str, at: Sequence[str] | None) -> Told:
    parts, unknown = (await _named(at)) if at else (_running_here(), {})
    told = await ask(image_uuid, parts)
    return Told(told.answers, unknown | told.silent)


async def _named(at: Sequence[str]) -> tuple[dict[str, Endpoint], dict[str, str]]:
    """The addresses given, by what to call them, and the names that nobody knows, with the reason."""
    parts: dict[str, Endpoint] = {}
    unknown = {}
    for named in map(Endpoint.parse, at):
        try:
            parts |= {str(address): address for address in await every_address(named)}
        except OSError as error:
            unknown[str(named)] = error.strerror or str(error)
    return parts, unknown


def _running_here() -> Mapping[str, Endpoint]:
    home = Home.default()
    found = state.running(home)
    if found is None:
        raise Unavailable(f"no service runs in {home.root}: 'shoal up' starts one, --at HOST:PORT asks another")
    return {
        part.name: Endpoint.parse(urlsplit(part.metrics).netloc)
        for part in found.parts
        if part.role in _COMPONENTS and part.metrics
    }


def _record(image_uuid: str, found: Sequence[Explanation], told: Told) -> dict[str, object]:
    return {
        "image_uuid": image_uuid,
        "requests": [
            {
                "seconds_ago": each.seconds_ago,
                "explanation": sentences(each),
                **each.model_dump(mode="json"),
            }
            for each in found
        ],
        "remembered": {part: answer.memory.model_dump(mode="json") for part, answer in told.answers.items()},
        "silent": told.silent,
    }


def _print(image_uuid: str, found: Sequence[Explanation]) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else _PIPE_COLUMNS)
    for number, each in enumerate(found):
        if number:
            console.print()
        console.print(shown(heading(image_uuid, each)), style="bold", markup=False)
        for sentence in sentences(each):
            console.print(shown(sentence), markup=False)
        console.print(timeline(each))


def _reach(memory: Memory) -> str:
    if not memory.limit:
        return "remembers none: observe.recent_requests is 0"
    since = "" if memory.seconds is None else f", since {memory.seconds:,.0f} s ago"
    return f"remembers {memory.requests:,} requests{since}"
