"""The process that starts decoders, as the worker sees it, and the memory in which pictures go there and back."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from shoal.errors import Unavailable
from shoal.worker.decoders import decoder_process
from shoal.worker.decoders.decoder_process import ChildEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from shoal.worker.decoders.decoder_process import DecodeRequest

_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""What a decoder may know; no credentials."""
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""What forks had better have no others."""
_LARGE_BYTES: Final = 2**20
"""Copied in a thread."""


class StarterProcess:
    """``decoder_process``, as its pool sees it."""

    def __init__(self, report: Callable[[ChildEnded], object], lost: Callable[[], object]) -> None:
        """Starts it. ``report`` is told of each child that is gone; ``lost`` is called once, if all of it is.

        Raises:
            OSError: it can't be started.
        """
        self._report = report
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            try:
                self._process = _run_starter(theirs.fileno())
            except OSError:
                self._socket.close()
                raise
        self._loop.add_reader(self._socket, self._read)

    def send(self, request: DecodeRequest, descriptors: Sequence[int]) -> bool:
        """Asks for something; False, if that can't be now, so that nothing will be told of it.

        What is sent to a process that died counts as sent: ``lost`` is called soon.
        """
        try:
            socket.send_fds(self._socket, [request.pack()], descriptors)
        except ConnectionError:
            return True
        except OSError:  # its socket is full, or more descriptors are on their way than one user may send
            return False
        return True

    async def close(self) -> None:
        """Ends it and all its children."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def _read(self) -> None:
        try:
            message = self._socket.recv(decoder_process.MAX_REPORT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message:
            self._report(ChildEnded.unpack(message))
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._lost()


def _run_starter(its_socket: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", decoder_process.__name__, str(its_socket), str(os.getpid())],
        pass_fds=[its_socket],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _ONE_THREAD,
        start_new_session=True,  # Ctrl-C is for the worker, which drains
    )


async def lay_out(code: bytes, data: Buffer) -> int:
    """A descriptor of memory with ``code`` and ``data``. Raises Unavailable."""
    view = memoryview(data).cast("B")
    try:
        if len(view) < _LARGE_BYTES:
            return _written(code, view)
        writing = asyncio.get_running_loop().run_in_executor(None, _written, code, view)
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            writing.add_done_callback(_close)
            raise
    except OSError as error:
        raise Unavailable(f"there is no memory for a picture: {error.strerror}; try again") from error


def _close(written: asyncio.Future[int]) -> None:
    if written.exception() is None:
        os.close(written.result())


def _written(*parts: Buffer) -> int:
    descriptor = memory(0)
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def memory(size: int) -> int:
    """A descriptor of ``size`` bytes of memory, which nobody has to clean up."""
    descriptor = os.memfd_create("shoal-picture", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor
