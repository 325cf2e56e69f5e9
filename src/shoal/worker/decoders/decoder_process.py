"""The process that starts decoders: it has every codec loaded, and forks a child for each picture.

A picture whose decoder crashes, writes where it shouldn't or asks for too much harms that child alone: no other picture
was or will be in it. A fork costs 2 to 3 ms of a core, which is why quick JPEGs don't come here (``danger``).

Run by ``decoder_pool``, which is all that it ever hears from, as
``python -m shoal.worker.decoders.decoder_process SOCKET PARENT_PID``. SOCKET is the descriptor of a Unix socket of
whole messages (SOCK_SEQPACKET). All of this is one thread.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import io
import math
import mmap
import os
import pickle
import resource
import selectors
import signal
import socket
import struct
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from shoal.errors import InvalidRequest
from shoal.pictures import pillow
from shoal.pictures.danger import least_bytes
from shoal.pictures.read_header import read_header
from shoal.pictures.region import PictureRegion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.pictures.decode import Decoder

DECODE: Final = b"d"
KILL: Final = b"k"
DONE: Final = b"d"
REFUSED: Final = b"r"
NO_MEMORY: Final = b"m"
FAILED: Final = b"f"
NOT_STARTED: Final = b"n"
MAX_REPORT_BYTES: Final = 2048

_MAX_TEXT_BYTES: Final = 1024
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_NO_MEMORY_TEXT: Final = "insufficient memory"
"""libjpeg's."""
_INPUT, _OUTPUT, _ANSWER = 3, 4, 5
"""A child's descriptors; beside /dev/null it has no others."""
_DESCRIPTORS: Final = 2
"""That come with a picture."""
_NICE: Final = 3
"""Pictures that are decoded here are slow or rare; those that aren't come first."""


class DecodeRequest(NamedTuple):
    """What the pool asks for; with ``DECODE`` come two descriptors, of the input and of ``out_bytes`` of output."""

    kind: bytes
    """``DECODE`` or ``KILL``."""
    job: int
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    """What decoding may add to what the process has."""
    decoder_bytes: int = 0
    """The input is a pickled decoder and a pickled list of regions, of this size together, then the picture."""
    out_bytes: int = 0

    def pack(self) -> bytes:
        """The bytes of the message to the starter, without its descriptors."""
        return _REQUEST.pack(*self)

    @classmethod
    def unpack(cls, message: bytes) -> DecodeRequest:
        """From what travelled."""
        return cls._make(_REQUEST.unpack(message))


class ChildEnded(NamedTuple):
    """A child is gone."""

    job: int
    status: int
    """The wait status, for ``os.waitstatus_to_exitcode``."""
    cpu_seconds: float
    memory_bytes: int
    """The most that was resident, codecs included."""
    said: bytes = b""
    """``DONE``, ``REFUSED``, ``NO_MEMORY`` or ``FAILED``; nothing, if it died of something else. ``NOT_STARTED``: there
    was no child, and ``text`` is why."""
    text: str = ""

    def pack(self) -> bytes:
        """The bytes of the message from the starter."""
        return _REPORT.pack(*self[:4]) + self.said + self.text.encode()

    @classmethod
    def unpack(cls, message: bytes) -> ChildEnded:
        """From what travelled."""
        said = message[_REPORT.size :]
        job, status, cpu_seconds, memory_bytes = _REPORT.unpack_from(message)
        return cls(job, status, cpu_seconds, memory_bytes, said[:1], said[1:].decode(errors="replace"))


_REQUEST: Final = struct.Struct("!cQdQQQ")
_REPORT: Final = struct.Struct("!QidQ")


@dataclass(slots=True)
class _Child:
    job: int
    pid: int


class Starter:
    """Starts a child for each picture, and reports what became of it."""

    def __init__(self, pool: socket.socket) -> None:
        self._pool = pool
        self._children: dict[int, _Child] = {}
        """By the descriptor where each one's answer comes."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(pool, selectors.EVENT_READ)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def run(self) -> None:
        """Returns when the pool is gone."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._pool:
                    self._bury(key.fd)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._pool, 1024, _DESCRIPTORS)
        if not message:
            return False
        request = DecodeRequest.unpack(message)
        if request.kind == DECODE:
            self._start(request, descriptors)
        else:
            for child in self._children.values():
                if child.job == request.job:
                    os.kill(child.pid, signal.SIGKILL)
        return True

    def _start(self, request: DecodeRequest, descriptors: list[int]) -> None:
        """What can't be started harms no other: processes, descriptors and memory may be short for a while."""
        try:
            answer, pid = self._fork(request, descriptors)
        except OSError as error:
            self._pool.send(ChildEnded(request.job, 0, 0.0, 0, NOT_STARTED, str(error.strerror)).pack())
            return
        self._children[answer] = _Child(request.job, pid)
        self._selector.register(answer, selectors.EVENT_READ)

    def _fork(self, request: DecodeRequest, descriptors: list[int]) -> tuple[int, int]:
        """Where the child's answer comes, and its id. Closes ``descriptors`` here. Raises OSError."""
        with ExitStack() as childs:
            for descriptor in descriptors:
                childs.callback(os.close, descriptor)
            if len(descriptors) != _DESCRIPTORS:  # the system leaves out those that there is no room for
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            answer, say = os.pipe()
            childs.callback(os.close, say)
            try:
                pid = os.fork()
            except OSError:
                os.close(answer)
                raise
            if not pid:
                _be_child(request, [*descriptors, say], self._libc)
        return answer, pid

    def _bury(self, answer: int) -> None:
        """A child has answered, or died."""
        said = os.read(answer, _MAX_TEXT_BYTES)
        self._selector.unregister(answer)
        os.close(answer)
        child = self._children.pop(answer)
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)  # or whoever took its process over could stay in it
        _, status, usage = os.wait4(child.pid, 0)
        used = usage.ru_utime + usage.ru_stime
        text = said[1:].decode(errors="replace")
        self._pool.send(ChildEnded(child.job, status, used, usage.ru_maxrss * 1024, said[:1], text).pack())


def _be_child(request: DecodeRequest, descriptors: list[int], libc: ctypes.CDLL) -> NoReturn:
    """Decodes one picture, answers, and is gone: nothing of Python's is torn down."""
    answer = FAILED
    try:
        _confine(request, descriptors, libc)
        answer = _answer(request)
    except BaseException as error:
        answer += type(error).__name__.encode()
    finally:
        with suppress(OSError):
            os.write(_ANSWER, answer[:_MAX_TEXT_BYTES])
        os._exit(0)


def _confine(request: DecodeRequest, descriptors: list[int], libc: ctypes.CDLL) -> None:
    """Takes away what decoding doesn't need, for ever."""
    parent = os.getppid()
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # it died before the tie
        os._exit(1)
    moved = [os.dup2(os.dup(each), 32 + number) for number, each in enumerate(descriptors)]
    for number, each in enumerate(moved):
        os.dup2(each, _INPUT + number)
    for name in list(Path("/proc/self/fd").iterdir()):
        if int(name.name) > _ANSWER:
            with suppress(OSError):  # what listed the folder
                os.close(int(name.name))
    with suppress(OSError):  # it, not the worker, when a container's memory is full
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    sys.dont_write_bytecode = True  # which the limit on files would cut short
    os.nice(_NICE)
    _limit(request)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _limit(request: DecodeRequest) -> None:
    pages = [int(field) for field in Path("/proc/self/statm").read_text(encoding="ascii").split()]
    page = resource.getpagesize()
    inputs = os.fstat(_INPUT).st_size
    # Two limits: what is written to counts as data; what is only reserved takes address space.
    _set(resource.RLIMIT_DATA, pages[5] * page + request.memory_bytes)
    _set(resource.RLIMIT_AS, pages[0] * page + request.memory_bytes + inputs)
    _set(resource.RLIMIT_FSIZE, max(request.out_bytes, _MAX_TEXT_BYTES))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_NOFILE, 16)
    _set(resource.RLIMIT_CPU, math.ceil(request.cpu_seconds) + 1)
    signal.setitimer(signal.ITIMER_PROF, request.cpu_seconds)  # finer, and it kills likewise


def _set(limit: int, value: int) -> None:
    _, most = resource.getrlimit(limit)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(limit, (value, value))


def _answer(request: DecodeRequest) -> bytes:
    view = memoryview(mmap.mmap(_INPUT, 0, access=mmap.ACCESS_READ))
    told = io.BytesIO(view[: request.decoder_bytes])
    decoder: Decoder = pickle.load(told)  # noqa: S301 - our own pool's
    regions = [region and PictureRegion(*region) for region in pickle.load(told)]  # noqa: S301 - likewise
    data = view[request.decoder_bytes :]
    row, written = np.zeros(decoder.input.shape, decoder.input.dtype), 0
    try:
        if least_bytes(decoder.read_header(data)) > request.memory_bytes:
            return NO_MEMORY
        for _ in decoder.decode_parts(data, row, regions):
            written = _write(row, written)
    except InvalidRequest as error:
        return NO_MEMORY if _NO_MEMORY_TEXT in str(error).lower() else REFUSED + str(error).encode()
    except (MemoryError, cv2.error):  # whose only reason can be memory: sizes are right by then
        return NO_MEMORY
    return DONE


def _write(row: NDArray[Any], begin: int) -> int:
    """Writes it into the output from ``begin`` on; where it ends there."""
    pixels = memoryview(row.tobytes())
    while pixels:
        written = os.pwrite(_OUTPUT, pixels, begin)
        pixels, begin = pixels[written:], begin + written
    return begin


def _warm_up() -> None:
    """Makes the codecs' first calls here, so that no child has to."""
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    picture = Image.new("RGB", (8, 8))
    for form in ("PNG", "WEBP"):
        file = io.BytesIO()
        picture.save(file, form)
        pillow.read(file.getvalue(), read_header(file.getvalue(), max_pixels=64, max_scans=1))
    simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)))


def main() -> None:
    """Ties this process to its parent, loads what children need, and starts them."""
    pool, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    with suppress(OSError):
        Path("/proc/self/comm").write_text("decoders", encoding="ascii")
    _warm_up()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # from here on nothing that a picture brings about may reach a log
        os.dup2(null, descriptor)
    gc.collect()
    gc.freeze()  # what is here stays, and no collection of a child's copies its pages
    gc.disable()
    Starter(pool).run()


if __name__ == "__main__":
    main()
