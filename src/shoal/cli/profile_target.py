"""What ``shoal profile`` measures: the engine with the model, and the grid of settings."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.cli.inputs import pictures
from shoal.errors import ConfigurationError
from shoal.profile.grid import Grid
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from shoal.modelconfig.model import ModelConfig
    from shoal.profile.inputs import Fill
    from shoal.profile.observer import Pace
    from shoal.profile.target import Target

_MOST_PICTURES = 64
"""More than a batch has rows; all of them stay in memory, decoded."""


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """The command line, checked."""

    model: str
    store: Path
    triton: str | None
    instances: tuple[int, ...] | None
    batches: tuple[int, ...] | None
    concurrencies: tuple[int, ...]
    rounds: int
    pace: Pace
    images: Path | None
    output: Path
    force: bool


@asynccontextmanager
async def open_target(options: ProfileOptions, say: Callable[[str], None]) -> AsyncIterator[tuple[Target, Grid]]:
    """The engine with the model, and what is measured on it."""
    if options.triton is None:
        from shoal.modelstore.repository import read_model
        from shoal.profile.embedded_target import EmbeddedTarget  # the other engine needs no OpenVINO

        config = read_model(options.store, options.model)
        largest = config.batching.max_batch_size
        batches = options.batches or (1, largest)
        here = EmbeddedTarget(config, _fill(config, options), Home.default().cache / "openvino", max(batches))
        yield here, _grid(options, options.instances or (here.instances,), batches)
        return
    from shoal.profile.triton_target import Asked, TritonTarget

    wanted = Asked(
        options.triton, options.model, options.batches, max(options.concurrencies), steer=options.instances is not None
    )
    async with TritonTarget.open(wanted, say, lambda tensor: _fill(_picture(options.model, tensor), options)) as there:
        instances = there.possible(options.instances or (there.instances,))
        yield there, _grid(options, instances, there.batches)


def _grid(options: ProfileOptions, instances: Sequence[int], batches: Sequence[int]) -> Grid:
    return Grid(
        instances=instances,
        batches=sorted(set(batches)),
        concurrencies=options.concurrencies,
        rounds=options.rounds,
        duration_seconds=options.pace.duration_seconds,
        input="random" if options.images is None else "pictures",
    )


def _fill(config: ModelConfig, options: ProfileOptions) -> Fill:
    """What fills a batch."""
    from shoal.profile.inputs import decode, fill_randomly, fill_with  # numpy may be missing

    if options.images is None:
        return fill_randomly
    if not options.images.exists():
        raise ConfigurationError(f"--images {options.images}: no such file or folder")
    return fill_with(decode(config, pictures([options.images])[:_MOST_PICTURES]))


def _picture(model: str, tensor: Any) -> ModelConfig:  # a protobuf message
    """What decoding needs of a model's configuration: pictures are stretched to the input's size."""
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.modelconfig.model import ModelConfig, Task, Tensor
    from shoal.modelconfig.pbtxt import DTYPES, enum_name

    shape = Tensor(tensor.name, DTYPES.get(enum_name(tensor, "data_type"), ""), tuple(tensor.dims))
    return ModelConfig(model, 1, Path(model), Task.CLASSIFICATION, shape, (), BatchingSettings())
