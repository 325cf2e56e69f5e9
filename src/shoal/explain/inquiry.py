"""Asks parts what they remember of a request, all at once; one that doesn't answer leaves the others' answers alone."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
from pydantic import ValidationError

from shoal.explain import PATH
from shoal.explain.views import Answer
from shoal.runtime.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Told:
    """What came back, by part."""

    answers: dict[str, Answer] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    """Why there is no answer."""


class _BusyError(Exception):
    """The part is asked too much."""


async def ask(image_uuid: str, parts: Mapping[str, Endpoint], timeout_seconds: float = TIMEOUT_SECONDS) -> Told:
    """Asks each part, by name, at its metrics address.

    Args:
        image_uuid: in its canonical form.
        parts: whom to ask.
        timeout_seconds: for all.
    """
    told = Told()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_seconds)) as session:

        async def one(part: str, address: Endpoint) -> None:
            try:
                told.answers[part] = await _ask(session, f"http://{address}{PATH}{image_uuid}")
            except TimeoutError:
                told.silent[part] = f"no answer within {timeout_seconds:g} s"
            except (aiohttp.ClientError, OSError) as error:
                told.silent[part] = str(error)
            except _BusyError:
                told.silent[part] = "busy with other questions; ask again"
            except ValidationError:
                told.silent[part] = f"{address} answers, but isn't the metrics address of a batcher or a worker"

        await asyncio.gather(*(one(part, address) for part, address in parts.items()))
    return Told({part: told.answers[part] for part in parts if part in told.answers}, told.silent)


async def _ask(session: aiohttp.ClientSession, url: str) -> Answer:
    async with session.get(url) as response:
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise _BusyError
        return Answer.model_validate_json(await response.read())


async def every_address(named: Endpoint) -> list[Endpoint]:
    """The addresses behind a DNS name, such as one a pod of a headless Kubernetes service; a loopback name is one.

    Raises:
        OSError: the name isn't known.
    """
    found = await asyncio.get_running_loop().getaddrinfo(named.host, named.port, type=socket.SOCK_STREAM)
    hosts = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if all(ipaddress.ip_address(host.partition("%")[0]).is_loopback for host in hosts):
        return [named]
    return [Endpoint(host, named.port) for host in hosts]
