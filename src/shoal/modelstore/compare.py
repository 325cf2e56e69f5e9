"""Holds a model's files against what a running Triton serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.errors import NotFound
from shoal.modelconfig import pbtxt
from shoal.modelconfig.fault import FaultReport
from shoal.modelstore import reader
from shoal.triton.steer import original

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from shoal.triton.client import TritonClient


async def compare(folder: Path, server: TritonClient) -> FaultReport:
    """The differences of the model in ``folder`` and what ``server`` serves of it; none if the files can't be read.

    What the files leave out, a server fills in, and a worker that loads a model changes who waits (``triton.steer``):
    that is no difference.

    Raises:
        Unavailable: the server is away.
    """
    report, unread = FaultReport(folder.name), FaultReport(folder.name)
    config = pbtxt.load(folder / pbtxt.FILE, unread)
    model = None if config is None else reader.view(folder, config, unread)
    if config is None or model is None:
        return report
    loaded = (await server.index()).get(folder.name, ())
    ready = sorted(one.version for one in loaded if one.ready)
    if ready != list(model.versions):
        why = "; ".join(f"version {one.version}: {one.reason}" for one in loaded if one.reason and not one.ready)
        served = f"serves version {', '.join(map(str, ready))}" if ready else "doesn't serve it"
        wanted = ", ".join(map(str, model.versions)) or "none"
        report.error(
            folder, "version_policy", f"is for version {wanted}; the Triton at {server.url} {served}{_aside(why)}"
        )
    if ready:
        try:
            running = original(await server.config(folder.name))
        except NotFound:  # unloaded since
            return report
        for field, here, there in _differences(config, running):
            message = f"is {here}; the Triton at {server.url} runs with {there}"
            report.error(folder / pbtxt.FILE, field, message)
    return report


def _aside(text: str) -> str:
    return f" ({text})" if text else ""


def _differences(here: pbtxt.Message, there: pbtxt.Message, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Path and both values of each field that ``here`` sets and ``there`` has otherwise."""
    for field, value in here.ListFields():
        where = f"{path}{field.name}"
        other = getattr(there, field.name)
        if _means_any(here, field.name):
            continue
        if field.message_type is None:
            if value != other:
                yield where, _shown(here, field, value), _shown(there, field, other)
        elif field.message_type.GetOptions().map_entry:
            yield from _map_differences(value, other, where)
        elif not hasattr(value, "ListFields"):
            yield from _list_differences(value, other, where)
        else:
            yield from _differences(value, other, f"{where}.")


def _map_differences(here: Mapping[str, Any], there: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    for key in sorted(here):
        if key not in there:
            yield f'{path}["{key}"]', "set", "none"
        elif hasattr(here[key], "ListFields"):
            yield from _differences(here[key], there[key], f'{path}["{key}"].')
        elif here[key] != there[key]:
            yield f'{path}["{key}"]', repr(here[key]), repr(there[key])


def _list_differences(here: Sequence[Any], there: Sequence[Any], path: str) -> Iterator[tuple[str, str, str]]:
    if len(here) != len(there):
        yield path, f"{len(here)} of them", f"{len(there)}"
        return
    for number, (one, other) in enumerate(zip(here, there, strict=True)):
        yield from _differences(one, other, f"{path}[{number}].")


def _means_any(message: pbtxt.Message, field: str) -> bool:
    """Whether a value leaves the choice to the server."""
    return field == "kind" and pbtxt.enum_name(message, field) == "KIND_AUTO"


def _shown(message: pbtxt.Message, field: Any, value: Any) -> str:  # a field's descriptor and value
    if field.enum_type is not None:
        return pbtxt.enum_name(message, field.name)
    return str(list(value)) if hasattr(value, "append") else repr(value)
