"""Tries a model as a worker does: loads it on the embedded engine, runs a few pictures, and looks at the answers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import ConfigurationError, ShoalError, Unavailable
from shoal.modelstore import fitting, repository

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.engine import Engine
    from shoal.modelconfig.fault import FaultReport
    from shoal.modelconfig.model import ModelConfig
    from shoal.triton.client import TritonClient


class TrialOutcome(NamedTuple):
    """What became of a model; all empty: it is served as its configuration says."""

    untried: str = ""
    """Why it wasn't tried."""
    unsupported: str = ""
    """Why this engine can't run it; another may."""
    broken: str = ""
    """Why no worker would serve it."""
    alone_because: str = ""
    """Why workers would serve it with batches of 1 alone."""


def try_out(config: ModelConfig) -> TrialOutcome:
    """Tries a model on OpenVINO, if that is installed and the model a file that it reads."""
    if config.path.suffix != ".onnx":
        return TrialOutcome(untried="it isn't ONNX")
    try:
        from shoal.engine.openvino import OpenVinoEngine  # the worker's extra
    except ModuleNotFoundError as error:
        return TrialOutcome(untried=f"{error.name} isn't installed: pip install 'shoal[worker]'")

    async def run() -> TrialOutcome:
        engine = OpenVinoEngine()
        try:
            return await judge(engine, config)
        finally:
            await engine.close()

    # The caller may have an event loop of its own.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


async def judge(engine: Engine, config: ModelConfig) -> TrialOutcome:
    """Tries a model on ``engine``. Raises Unavailable where that is away."""
    from shoal.engine import Unsupported, probe  # numpy, which `shoal --help` needn't wait for

    try:
        loaded, samples, alone_because = await probe.load(engine, config)
    except Unsupported as error:
        return TrialOutcome(unsupported=str(error))
    except Unavailable:
        raise
    except (ShoalError, MemoryError) as error:
        return TrialOutcome(broken=str(error) or "its memory can't be had")
    try:
        return TrialOutcome(broken=fitting.misfit(config, samples), alone_because=alone_because)
    finally:
        await loaded.close()


async def through(server: TritonClient, folder: Path, report: FaultReport) -> None:
    """Tries the model in ``folder``, which has no fault so far, at a Triton that runs it, and reports what came of it.

    Raises:
        Unavailable: the server is away.
    """
    from shoal.engine.triton.engine import RunningTriton  # tritonclient takes 0.3 s to import

    config = repository.read_model(folder.parent, folder.name)
    _tell(report, config, await judge(RunningTriton(server), config))


def add_to(report: FaultReport, folder: Path) -> None:
    """Tries the model in ``folder``, which has no fault so far, and reports what came of it."""
    config = repository.read_model(folder.parent, folder.name)
    _tell(report, config, try_out(config))


def _tell(report: FaultReport, config: ModelConfig, outcome: TrialOutcome) -> None:
    if outcome.untried:
        report.note(config.path, "", f"not tried: {outcome.untried}")
    if outcome.unsupported:
        report.error(
            config.path,
            "",
            f"can't be served with engine: openvino ({outcome.unsupported}); a pool with engine: triton may, and "
            "`shoal model check --triton HOST:PORT` asks one",
        )
    if outcome.broken:
        report.error(config.path, "", outcome.broken)
    if outcome.alone_because and not outcome.broken:
        report.note(config.path, "max_batch_size", f"workers take batches of 1 alone: {outcome.alone_because}")


def refuse(folder: Path) -> str:
    """Raises ConfigurationError where no worker would serve the model in ``folder`` as it is.

    Returns:
        A remark on a model that the embedded engine can't run; empty: it can, or wasn't tried.
    """
    outcome = try_out(repository.read_model(folder.parent, folder.name))
    if outcome.broken:
        raise ConfigurationError(outcome.broken)
    if outcome.alone_because:
        raise ConfigurationError(
            f"{outcome.alone_because}; export the model with a dynamic batch axis, or add it with --max-batch-size 1"
        )
    return outcome.unsupported
