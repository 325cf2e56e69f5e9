"""What of this process's memory the GPU can read by itself."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from typing import Any

_log = logging.getLogger(__name__)
_ALREADY = 712  # cudaErrorHostMemoryAlreadyRegistered


class HostMemory:
    """Triton hands inputs over in a mapping of shared memory that stays, so it is made readable once."""

    def __init__(self) -> None:
        self._mappings: dict[tuple[int, int], bool] = {}

    def reaches(self, begin: int, size: int) -> bool:
        """Whether the GPU can read these bytes in place. Tries, once a mapping, to make it so."""
        end = begin + size
        for (first, last), usable in self._mappings.items():
            if first <= begin and end <= last:
                return usable
        mapping = _mapping(begin, end)
        if mapping is None:
            return False
        for known in [known for known in self._mappings if known[0] < mapping[1] and mapping[0] < known[1]]:
            if self._mappings.pop(known):  # it has grown, or is another one now
                _succeeds(torch.cuda.cudart().cudaHostUnregister(known[0]))
        self._mappings[mapping] = usable = _register(*mapping)
        if not usable:
            _log.warning(
                "the GPU can't read %d bytes of shared memory in place: they are copied", mapping[1] - mapping[0]
            )
        return usable


def _register(first: int, last: int) -> bool:
    return _succeeds(torch.cuda.cudart().cudaHostRegister(first, last - first, 0))


def _succeeds(status: Any) -> bool:
    """Takes an error away, which would be told to whoever calls CUDA next."""
    if int(status) in {0, _ALREADY}:
        return True
    with suppress(RuntimeError):
        torch.zeros(1, device="cuda")
    return False


def _mapping(begin: int, end: int) -> tuple[int, int] | None:
    """The shared mapping of this process that holds these addresses."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        addresses, permissions, *_ = line.split()
        first, last = (int(word, 16) for word in addresses.split("-"))
        if first <= begin < last:
            return (first, last) if end <= last and permissions.startswith("rw") and permissions[3] == "s" else None
    return None
