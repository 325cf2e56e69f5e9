"""Which of a peer's choices is best here: a short measured search, kept as data.

Kept in results/peers_choices.json by peer, picture size and decoder, with each choice's rate. A later run takes what
was found, unless the peer's versions, its choices or the machine are others.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.files import read_json, write_json
from benchmarks.peers.measure import saturate
from benchmarks.peers.settings import CHOICES, Windows
from benchmarks.peers.target import check, of_peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.peers.peer import Peer
    from benchmarks.peers.pictures import Size
    from benchmarks.peers.servers.plan import Choice
    from benchmarks.peers.target import Job

WINDOWS = Windows(saturated_seconds=2.0)


class Search:
    """Finds choices, and remembers them."""

    def __init__(self, job: Job, machine: dict[str, Any], say: Callable[[str], None], file: Path = CHOICES) -> None:
        self._job = job
        self._machine = machine
        self._say = say
        self._file = file

    def best(self, peer: Peer, size: Size, decoder: str) -> Choice:
        """The best choice, measured now if it isn't known. What is measured is kept at once."""
        found = self._rates(peer, size, decoder)
        for choice in peer.choices:
            if choice.name not in found:
                self._say(f"choices, {size}, {decoder} decoder, {peer.title}: {choice.name}")
                found[choice.name] = self._measure(peer, choice, size, decoder)
                self._keep(peer, size, decoder, found)
        return pick(peer.choices, found)

    def known(self, peer: Peer, size: Size, decoder: str) -> Choice:
        """The best of what was measured before; the first if nothing was."""
        return pick(peer.choices, self._rates(peer, size, decoder))

    def _measure(self, peer: Peer, choice: Choice, size: Size, decoder: str) -> float:
        async def run() -> float:
            await check(target, self._job.references[size, decoder])
            found = await saturate(target, size, WINDOWS.saturated(size))
            return 0.0 if found["errors"] else float(found["images_per_s"])

        with of_peer(peer, choice, self._job, size, decoder) as target:
            return asyncio.run(run())

    def _key(self, peer: Peer) -> dict[str, Any]:
        return {
            "versions": peer.versions(),
            "choices": [asdict(choice) for choice in peer.choices],
            "machine": self._machine,
            "seconds": WINDOWS.saturated_seconds,
        }

    def _rates(self, peer: Peer, size: Size, decoder: str) -> dict[str, float]:
        entry = (read_json(self._file) or {}).get(peer.name)
        if entry is None or entry["key"] != self._key(peer):
            return {}
        rates: dict[str, float] = entry["images_per_s"].get(f"{size}, {decoder}", {})
        return dict(rates)

    def _keep(self, peer: Peer, size: Size, decoder: str, rates: dict[str, float]) -> None:
        found = read_json(self._file) or {}
        key = self._key(peer)
        entry = found.get(peer.name)
        if entry is None or entry["key"] != key:
            entry = {"key": key, "images_per_s": {}}
        entry["images_per_s"][f"{size}, {decoder}"] = rates
        write_json(self._file, {**found, peer.name: entry})


def pick(choices: tuple[Choice, ...], rates: dict[str, float]) -> Choice:
    """The fastest; of equals, and where nothing was measured, the first."""
    return max(choices, key=lambda choice: rates.get(choice.name, 0.0))
