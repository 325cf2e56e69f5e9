"""Answers of one model that are given again to a picture of the same content, where its operator wants that.

What says that two requests have the same answer is a SHA-256 over that of the picture's bytes and over all that the
answer depends on beside them (``Scope``). Each region of a picture has an answer of its own. A cache belongs to one
loaded model: the same version with other weights begins with an empty one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.v1 import inference_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from shoal.service.spec import ModelOverride
    from shoal.worker.heads.head import Reply
    from shoal.worker.result_cache_meter import ResultCacheMeter

ENTRY_BYTES: Final = 704
"""Memory of an answer beside its own bytes, at most: CPython objects of 300 with the key, a table of up to 168,
and twice that while it is made anew (six slots an answer: dictobject.c, GROWTH_RATE)."""
_NUMBER_BYTES: Final = 8


class Scope(NamedTuple):
    """What an answer depends on beside the picture's content."""

    version: int
    """Of the model."""
    owner: str
    """Whose answers these are; empty: everybody's."""
    options: bytes
    """What the request says otherwise, serialized."""

    @classmethod
    def of(cls, request: inference_pb2.ImageRequest, version: int, owner: str) -> Scope:
        """All its fields count, also those that only newer callers know; but not who asks, for what, and how old."""
        options = inference_pb2.ImageRequest()
        options.CopyFrom(request)
        for name in ("api_key", "image_uuid", "model_name", "model_version", "max_age_us"):
            options.ClearField(name)
        return cls(version, owner, options.SerializeToString(deterministic=True))

    def key(self, content: bytes) -> bytes:
        """Of a picture's ``content_digest``, 32 bytes.

        Each part goes after its length, so that none can be taken for another.
        """
        owner = self.owner.encode()
        digest = hashlib.sha256()
        for part in (self.version.to_bytes(_NUMBER_BYTES, "big"), owner, self.options):
            digest.update(len(part).to_bytes(_NUMBER_BYTES, "big"))
            digest.update(part)
        digest.update(content)
        return digest.digest()


def content_digest(data: Buffer) -> bytes:
    """Of a picture's bytes, 32 bytes. In a thread: it takes about 0.5 ms a MB, mostly without the GIL."""
    return hashlib.sha256(data).digest()


class ResultCache:
    """Bounded in bytes and in time: what wasn't asked for longest goes first. Belongs to one event loop."""

    def __init__(
        self,
        *,
        seconds: float,
        max_bytes: int,
        meter: ResultCacheMeter,
        shared: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Starts empty.

        Args:
            seconds: How long an answer is given, from its making.
            max_bytes: The most memory for all answers, their keys included.
            meter: Is told what becomes of them.
            shared: Whether owners get each other's answers.
            clock: Seconds that never go back.
        """
        self.held_bytes = 0
        """Memory that the answers take, counted as ``ENTRY_BYTES`` says; never over ``max_bytes``."""
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._meter = meter
        self._shared = shared
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        """Key to when it ends and to its bytes; the one that was used last stands last."""

    @classmethod
    def of(cls, override: ModelOverride, processes: int, meter: ResultCacheMeter) -> ResultCache | None:
        """As the service file says of the model; None: it has no cache. ``processes`` of a worker share its bytes."""
        if not override.cache_seconds:
            return None
        limit = override.cache_max_bytes // processes
        cache = cls(seconds=override.cache_seconds, max_bytes=limit, meter=meter, shared=override.cache_shared)
        meter.show(cache)
        return cache

    def __len__(self) -> int:
        """Answers that it has, those included whose time is over and that nobody asked for since."""
        return len(self._answers)

    def scope(self, request: inference_pb2.ImageRequest, version: int, owner: str) -> Scope:
        """Of a request of ``owner`` to the model's ``version``."""
        return Scope.of(request, version, "" if self._shared else owner)

    def get(self, key: bytes) -> bytes | None:
        """What ``put`` was given, while it holds."""
        found = self._answers.get(key)
        if found is None:
            self._meter.missed()
            return None
        until, answer = found
        if until <= self._clock():
            self._drop(key, answer)
            self._meter.expired()
            self._meter.missed()
            return None
        self._answers.move_to_end(key)
        self._meter.hit()
        return answer

    def put(self, key: bytes, answer: bytes) -> None:
        """Keeps ``answer``, in place of an earlier one of that key; one that is larger than the cache isn't kept."""
        size = len(answer) + ENTRY_BYTES
        if size > self._max_bytes:
            return
        if (earlier := self._answers.get(key)) is not None:
            self._drop(key, earlier[1])
        while self.held_bytes + size > self._max_bytes:
            self._evict()
        self._answers[key] = self._clock() + self._seconds, answer
        self.held_bytes += size

    def _evict(self) -> None:
        key, (until, answer) = next(iter(self._answers.items()))
        self._drop(key, answer)
        if until <= self._clock():
            self._meter.expired()
        else:
            self._meter.evicted()

    def _drop(self, key: bytes, answer: bytes) -> None:
        del self._answers[key]
        self.held_bytes -= len(answer) + ENTRY_BYTES


def lasting(reply: Reply) -> bytes:
    """What of ``reply`` holds for other requests, serialized. Takes out of it whatever is its request's own."""
    reply.ClearField("image_uuid")
    reply.ClearField("timing")
    return reply.SerializeToString()


def completed(answer: bytes, own: Reply) -> bytes:
    """A reply made of what ``lasting`` answered, and of what is its request's ``own``: uuid and timing.

    Serialized messages of one kind are merged by putting them together
    (https://protobuf.dev/programming-guides/encoding/#last-one-wins): no large mask is read and written anew.
    """
    return answer + own.SerializeToString()
