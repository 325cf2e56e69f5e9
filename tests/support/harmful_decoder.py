"""A decoder that does to its process what the picture says, as a hostile picture might."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from shoal.errors import InvalidRequest
from shoal.pictures.decode import Decoder
from shoal.pictures.header import PictureFormat, PictureHeader
from shoal.worker.decoders import decoder_process


class HarmfulDecoder(Decoder):
    """Takes the name of a harm for a picture; its process finds this class with ``tests`` on its path."""

    def decode_parts(self, data: Any, out: Any, regions: Any) -> Any:
        return [_HARM[bytes(data).decode()]()]

    def read_header(self, data: Any) -> PictureHeader:
        return PictureHeader(PictureFormat.PNG, 8, 8)


def _spin() -> None:
    while True:
        pass


def _write() -> None:
    os.write(1, b"noise")
    os.write(2, b"noise")
    raise InvalidRequest("written")


def _look() -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir())) - 1  # and the folder itself
    raise InvalidRequest(f"{descriptors} {sorted(os.environ)}")


_HARM = {
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "spin": _spin,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(3),
    "fill": lambda: bytearray(300 * 2**20),
    "write": _write,
    "look": _look,
    "fault": lambda: {}["missing"],
    "outgrow": lambda: os.pwrite(decoder_process._OUTPUT, b"x" * 4096, 10_000_000),
}
