"""The ways to hand a batch over, what is measured of them, and the bytes each moves. No clock, no I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH: Final = 8
SHAPE: Final = (224, 224, 3)
CLASSES: Final = 1000
TENSOR_BYTES: Final = SHAPE[0] * SHAPE[1] * SHAPE[2]
"""Of one picture, uint8."""
IN_FLIGHT: Final = (1, 4)

MEMORY, MESSAGE, JPEG = "memory", "message", "jpeg"
NOBODY, CLIENT, SERVER, NVJPEG = "nobody", "client", "server", "nvjpeg"
TAKE, NETWORK = "take", "network"
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Way:
    """How a batch is handed over, and who decodes it."""

    carried: str
    """``memory``, ``message`` (both: tensors) or ``jpeg`` (in the message)."""
    decodes: str
    """``nobody``: tensors are ready, JPEGs stay JPEGs; ``nvjpeg``: the server, on a GPU."""

    @property
    def name(self) -> str:
        """In results."""
        return f"{self.carried}, {self.decodes}"


TRANSPORT: Final = (Way(MEMORY, NOBODY), Way(MESSAGE, NOBODY), Way(JPEG, NOBODY))
"""Nothing is decoded."""
DECODED: Final = (Way(MEMORY, CLIENT), Way(MESSAGE, CLIENT), Way(JPEG, SERVER))
ON_GPU: Final = Way(JPEG, NVJPEG)


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to measure."""

    model: str
    """``take`` answers at once; ``network`` is a real one."""
    way: Way
    in_flight: int

    def __str__(self) -> str:
        return f"{self.model}: {self.way.name}, {self.in_flight} in flight"


def cells(*, nvjpeg: bool) -> list[Cell]:
    """All of them; those to compare stand side by side."""
    decoded = (*DECODED, ON_GPU) if nvjpeg else DECODED
    # A network can't run on JPEGs that nobody decodes.
    groups = ((TAKE, TRANSPORT), (TAKE, decoded), (NETWORK, TRANSPORT[:2]), (NETWORK, decoded))
    return [Cell(model, way, n) for model, ways in groups for n, way in product(IN_FLIGHT, ways)]


def turns(every: Sequence[Cell], rounds: int) -> Iterator[Cell]:
    """Each round measures all cells, every other one backwards: what changes with time meets all of them."""
    for number in range(rounds):
        yield from every[:: -1 if number % 2 else 1]


def packed(jpegs: Sequence[bytes]) -> bytes:
    """What a BYTES tensor of the v2 protocol is: each element behind its length."""
    return b"".join(part for jpeg in jpegs for part in (_LENGTH.pack(len(jpeg)), jpeg))


@dataclass(frozen=True, slots=True)
class Messages:
    """Serialised sizes of what went through sockets, over all answered batches of a window."""

    batches: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0

    def plus(self, request: int, answer: int) -> Messages:
        """With one batch more."""
        return Messages(self.batches + 1, self.request_bytes + request, self.answer_bytes + answer)


def moved(way: Way, messages: Messages, jpeg_bytes: float) -> dict[str, Any]:
    """Bytes a picture.

    Args:
        way: Decides where the payload goes.
        messages: Counted; gRPC's and TCP's framing isn't in it.
        jpeg_bytes: Mean size of a picture's file; counted.

    Returns:
        ``counted``: request and answer. ``computed``: what the client writes into shared memory, and what Triton copies
        from there or from the message into the memory that it shares with its Python backend
        (``SaveRequestsToSharedMemory``: https://github.com/triton-inference-server/python_backend/blob/main/src/python_be.cc).
    """
    images = max(messages.batches * BATCH, 1)
    payload = jpeg_bytes + _LENGTH.size if way.carried == JPEG else TENSOR_BYTES
    return {
        "counted": {
            "file": round(jpeg_bytes, 1),
            "request": round(messages.request_bytes / images, 1),
            "answer": round(messages.answer_bytes / images, 1),
        },
        "computed": {
            "shared_memory": TENSOR_BYTES if way.carried == MEMORY else 0,
            "backend": round(payload, 1),
        },
    }
