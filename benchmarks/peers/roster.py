"""All peers, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.litserve import LITSERVE
from benchmarks.peers.mosec import MOSEC
from benchmarks.peers.ray_serve import RAY_SERVE
from benchmarks.peers.triton import TRITON

if TYPE_CHECKING:
    from benchmarks.peers.peer import Peer

PEERS: dict[str, Peer] = {peer.name: peer for peer in (MOSEC, LITSERVE, RAY_SERVE, TRITON)}
