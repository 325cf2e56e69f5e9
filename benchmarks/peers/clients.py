"""Lean clients for the peers, with the method that Shoal's own client has: the load generator knows no difference."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from shoal.client.results import Class, Classification, Timing
from shoal.errors import Code, DeadlineExceeded, Unavailable, from_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from shoal.client.results import Image
    from shoal.modelconfig.model import Task

_CODES = {400: Code.INVALID_ARGUMENT, 413: Code.INVALID_ARGUMENT, 422: Code.INVALID_ARGUMENT}
_CODES |= {404: Code.NOT_FOUND, 408: Code.DEADLINE_EXCEEDED, 504: Code.DEADLINE_EXCEEDED, 429: Code.RESOURCE_EXHAUSTED}
_CODES |= {502: Code.UNAVAILABLE, 503: Code.UNAVAILABLE}
_SHOWN_CHARACTERS = 200


class HttpCaller:
    """The picture is the body of a POST; the answer is JSON."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def infer(
        self,
        task: Task,  # noqa: ARG002 - see LoadClient
        image: Image,
        model: str,
        *,
        timeout_seconds: float | None = None,
    ) -> Classification:
        """See ``shoal.client.load.generator.LoadClient``; ``image`` is bytes."""
        limit = aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._session.post(self._url, data=image, timeout=limit) as response:
                body = await response.read()
        except TimeoutError:
            raise DeadlineExceeded("no answer in time") from None
        except aiohttp.ClientError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        if response.status != 200:
            text = body[:_SHOWN_CHARACTERS].decode(errors="replace")
            raise from_status(_CODES.get(response.status, Code.INTERNAL), f"{response.status}: {text}")
        found = json.loads(body)
        return result(found["classes"], found["batch"], model)


@asynccontextmanager
async def http(port: int, path: str) -> AsyncIterator[HttpCaller]:
    """A session that keeps its connections, one a request in flight."""
    headers = {"Content-Type": "image/jpeg"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers, auto_decompress=False
    ) as session:
        yield HttpCaller(session, f"http://127.0.0.1:{port}{path}")


class TritonCaller:
    """The picture is a tensor of bytes."""

    def __init__(self, client: triton.InferenceServerClient, model: str) -> None:
        self._client = client
        self._model = model
        self._outputs = [triton.InferRequestedOutput(name) for name in ("classes", "probabilities", "batch")]

    async def infer(
        self,
        task: Task,  # noqa: ARG002 - see LoadClient
        image: Image,
        model: str,
        *,
        timeout_seconds: float | None = None,
    ) -> Classification:
        """See ``shoal.client.load.generator.LoadClient``; ``image`` is bytes."""
        assert isinstance(image, bytes)
        picture = triton.InferInput("picture", [1, len(image)], "UINT8")
        picture.set_data_from_numpy(np.frombuffer(image, np.uint8)[None])
        try:
            found = await self._client.infer(
                self._model, [picture], outputs=self._outputs, client_timeout=timeout_seconds
            )
        except InferenceServerException as error:
            raise from_status(_grpc_code(error.status()), error.message()) from error
        classes, probabilities, batch = (found.as_numpy(output.name())[0] for output in self._outputs)
        return result(zip(classes.tolist(), probabilities.tolist(), strict=True), int(batch[0]), model)


@asynccontextmanager
async def triton_grpc(port: int, model: str) -> AsyncIterator[TritonCaller]:
    """One channel."""
    async with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield TritonCaller(client, model)


def _grpc_code(status: str | None) -> int:
    name = (status or "").removeprefix("StatusCode.")
    return int(grpc.StatusCode[name].value[0]) if name in grpc.StatusCode.__members__ else Code.INTERNAL


def result(classes: Iterable[Any], batch: int, model: str) -> Classification:
    """An answer in the words of Shoal's client; of the times only the batch's size is known."""
    found = tuple(Class(index, "", probability) for index, probability in classes)
    return Classification("", model, 1, found, Timing(0, 0, 0, 0, 0, 0, batch))
