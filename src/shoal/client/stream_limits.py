"""Bounds and times of a client's streams of calls."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.batching import wire


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What holds for one method, model and priority; tests take others."""

    streams: int = 8
    """Open at once; what finds no room waits in the client."""
    calls: int = wire.STREAM_CALLS - 1
    """Unanswered on one stream. With one more the service wouldn't read on, nor learn which of them were withdrawn."""
    chunk_bytes: int = wire.STREAM_CHUNK_BYTES
    alone_while_opening: int = 32
    """Unary calls at once while a first stream is opened; what comes beyond waits for it."""
    silence_seconds: float = 5.0
    """A service that has streams answers a new one at once; one that is silent for so long has none."""
    idle_seconds: float = 5.0
    """A stream without calls is ended then."""
    replace_seconds: tuple[float, float] = (5.0, 10.0)
    """A stream is replaced at an age between these, so that routers and batchers that joined get their share. And with
    the headers of a new stream a draining Envoy tells the connection to go: the stream after that goes elsewhere, well
    within the 30 s that a router drains in a cluster."""
    again_seconds: float = 1.0
    """After a stream couldn't be opened: no other is tried before."""
    silent_again_seconds: float = 60.0
    """There, where the service was silent."""
    refused_again_seconds: float = 600.0
    """There, where the service said that it has no streams."""
