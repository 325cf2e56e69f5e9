"""The wire between batcher and worker: names, limits of messages, and how a worker's settings travel.

Both halves, the router between them and the client take these from here. The messages are proto/shoal/batching/v1.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any, Final, NamedTuple

from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings

SERVICE: Final = "shoal.batching.v1.Batching"
COMPUTE: Final = f"/{SERVICE}/Compute"
"""A batching stream: batches go one way, results come the other."""

MODEL: Final = "x-model-name"
"""In a call's metadata, and in a stream's: what routers go by."""
METHOD: Final = "x-shoal-method"
"""In a stream's metadata: the full method of its items."""
BATCHER: Final = "x-shoal-batcher"
"""There, too: a name for the batcher's process."""
SETTINGS: Final = "x-shoal-batching"
"""In a stream's initial metadata: what ``write_settings`` wrote."""
WORKER: Final = "x-shoal-worker"
"""There, too: a name for the worker's process, which no other has."""
TAKES: Final = "x-shoal-takes"
"""There, too, and in a stream's metadata: what the worker, or the batcher, understands beyond the protocol's first
version, with commas between."""
WITHDRAWN: Final = "withdrawn"
"""One of a worker's: ``BatchChunk.withdrawn``."""
EARLY: Final = "early"
"""One of a batcher's: ``BatchResultChunk.early``."""
TAKEN: Final = "x-shoal-taken"
"""In a stream's trailers, where the worker ends it: items from this index on were never begun."""

STREAM: Final = "Stream"
"""Behind a unary method's path: its stream of many calls (stream.proto)."""
PRIORITY: Final = "x-priority"
"""``interactive`` or ``bulk``. In a call's metadata: it lowers what the caller's key has, and never raises it. In a
batching stream's: its batches hold nothing more urgent."""
AFFINITY: Final = "x-shoal-affinity"
"""In a unary call's metadata: what ``CallItem.affinity`` is to one of a stream."""
TIMEOUTS: Final = "x-shoal-timeouts"
"""From the router, with a stream of calls: microseconds for a call that names none, a comma, and the most for any."""
KEYS_VERSION: Final = "/shoal.router.v1.Keys/Version"
"""The router answers batchers, where these reach it: ``KEYS`` in the trailers says which keys there are."""
KEYS_CHECK: Final = "/shoal.router.v1.Keys/Check"
"""There, too: OK where a key has the identity in ``x-api-key`` now, and may call the model of ``MODEL``; else
UNAUTHENTICATED."""
KEYS: Final = "x-shoal-keys"
"""A digest: another one says that keys have changed."""
PICTURES: Final = "/shoal.v1.Pictures/"
"""Calls that bring their picture along. The router alone makes them, of what is no gRPC."""
PICTURES_CREATE: Final = f"{PICTURES}Create"
"""Such a call that asks nothing: the picture is stored."""
PICTURE_ANSWERED: Final = "shoal_picture"
"""What Envoy is told of a worker's own answer to such a call."""
STREAM_CALLS: Final = 1024
"""Calls in flight on one stream; more are not read before results have left. And the most in one ``CallChunk``."""
STREAM_CHUNK_BYTES: Final = 2**20
"""What clients put into a ``CallChunk``, together, where a single request isn't larger."""

REQUEST_BYTES: Final = 64 * 2**10
"""The largest request of Shoal's own methods; another service's batcher may be told to take larger ones."""
MAX_REQUEST_BYTES: Final = 3 * 2**20
"""The largest request that a batcher can be told to take: it has company in its chunk, of which workers take 4 MiB."""
CHUNK_BYTES: Final = 2**20
"""Requests in one ``BatchChunk``, together; a larger batch takes several, and a larger request one of its own."""
MAX_CHUNK_BYTES: Final = 4 * 2**20
"""The largest ``BatchChunk`` that workers take."""
REPLY_BYTES: Final = 16 * 2**20
"""The largest reply, which is what clients take. Among Shoal's own only a mask can come near it."""
RESULTS_BYTES: Final = 4 * 2**20
"""Replies in one ``BatchResultChunk``, together; what is more goes in another, with its own time to be written."""
MAX_RESULTS_BYTES: Final = 64 * 2**20
"""The largest ``BatchResultChunk`` that batchers take."""


class Reading(NamedTuple):
    """What a worker told."""

    settings: BatchingSettings
    unknown: tuple[str, ...]
    """Names of fields that this version doesn't know."""


@lru_cache(64)
def write_settings(settings: BatchingSettings) -> str:
    """The text that ``read_settings`` reads."""
    return json.dumps(asdict(settings))


def read_settings(text: str) -> Reading:
    """Reads what a worker of any version wrote.

    A field that isn't there has its default; one that isn't known, since the worker is newer, is told and left out.

    Raises:
        ConfigurationError: naming what can't be read.
    """
    told = _object(text)
    known = {field.name for field in fields(BatchingSettings)}
    values = {name: _value(name, value) for name, value in told.items() if name in known}
    settings = BatchingSettings(**values)
    settings.check_numbers()
    return Reading(settings, tuple(sorted(told.keys() - known)))


def _object(text: str) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{text[:100]!r} is not JSON") from None
    if not isinstance(told, dict):
        raise ConfigurationError(f"{text[:100]!r} is not a JSON object")
    return told


def _value(name: str, value: Any) -> Any:  # what JSON brings
    """The value of a known field: an integer, or a tuple of some."""
    if name == "preferred_batch_size":
        if isinstance(value, list) and all(type(size) is int for size in value):
            return tuple(value)
        raise ConfigurationError(f"{name} is {str(value)[:100]}: expected a list of integers")
    if type(value) is not int:  # a bool is none
        raise ConfigurationError(f"{name} is {str(value)[:100]}: expected an integer")
    return value
