"""Lanes without a GPU, for the control flow alone: a batch takes some milliseconds, its logits are its rows' means."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np


def make_lanes(network: str, count: int, size: int) -> list[Lane]:
    assert network in {"resnet152", "resnet50"}
    return [Lane(size) for _ in range(count)]


def pinned(pictures: np.ndarray) -> np.ndarray:
    return pictures


def received(tensor: Any) -> np.ndarray:
    return np.from_dlpack(tensor)


class Lane:
    def __init__(self, size: int) -> None:
        self._size = size

    def start(self, pictures: np.ndarray) -> None:
        assert len(pictures) <= self._size
        means = pictures.reshape(len(pictures), -1).mean(1, dtype=np.float32)
        self._logits = np.repeat(means[:, None], 1000, axis=1)
        self._done = threading.Event()
        threading.Timer(0.004, self._done.set).start()

    def wait(self, *, awake: bool) -> np.ndarray:
        self._done.wait()
        return self._logits.copy()
