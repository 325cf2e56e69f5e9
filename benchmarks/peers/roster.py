"""All peers, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.litserve import LITSERVE
from peers.mosec import MOSEC
from peers.ray_serve import RAY_SERVE
from peers.triton import TRITON

if TYPE_CHECKING:
    from peers.peer import Peer

PEERS: dict[str, Peer] = {peer.name: peer for peer in (MOSEC, LITSERVE, RAY_SERVE, TRITON)}
