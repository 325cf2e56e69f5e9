"""A Triton for as long as a block of code: for tests, benchmarks and the profile tool."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.local.plan import triton_part
from shoal.local.process import LocalProcess
from shoal.runtime.ports import FreePorts
from shoal.triton.launch import Options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shoal.triton.launch import ControlMode


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready."""

    url: str
    """``HOST:PORT`` of the v2 gRPC protocol."""
    metrics: str
    """The address of its Prometheus metrics."""
    process: LocalProcess


@asynccontextmanager
async def running(
    repository: Path,
    logs: Path,
    *,
    control: ControlMode = "explicit",
    models: tuple[str, ...] = (),
    client_shared_memory: bool = True,
    packages: Path | None = None,
) -> AsyncIterator[Running]:
    """Starts a Triton on ``repository``, on free ports, and stops it in the end; it can't outlive this process.

    Args:
        repository: The model repository.
        logs: The folder of ``triton.log``.
        control: Who loads models.
        models: Loaded at the start.
        client_shared_memory: See ``Options``.
        packages: See ``Options``.

    Raises:
        ShoalError: it didn't get ready; the end of its log is in the text.
    """
    free = FreePorts()
    options = Options(
        repository, free(), free(), control, models, client_shared_memory=client_shared_memory, packages=packages
    )
    process = await LocalProcess.start(triton_part("triton", options), logs)
    try:
        await process.ready()
        yield Running(str(options.listen), f"http://{options.metrics}/metrics", process)
    finally:
        await process.stop()
