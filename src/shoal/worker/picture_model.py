"""One served model: what its batches need, put together once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.batching.turns import Turns
from shoal.engine.slots import PREFETCHED
from shoal.runtime.share import share

if TYPE_CHECKING:
    import asyncio

    from shoal.engine import LoadedModel
    from shoal.engine.triton.encoded_rows import JpegRow
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.pictures.decode import Decoder
    from shoal.worker.admission import Admission
    from shoal.worker.decode_choice import DecodeChoice
    from shoal.worker.decoding import Decoding
    from shoal.worker.fetch_picture import Fetcher
    from shoal.worker.heads.head import Head
    from shoal.worker.meter import Meter
    from shoal.worker.result_cache import ResultCache


@dataclass(frozen=True, slots=True)
class PictureModel:
    """One served model."""

    loaded: LoadedModel[Any]
    admission: Admission
    decoder: Decoder
    head: Head
    fetcher: Fetcher
    decoding: Decoding
    """Where pictures are decoded."""
    meter: Meter
    processes: int = 1
    """That share the engine, this one among them."""
    choice: DecodeChoice | None = None
    """Where its JPEGs are decoded; None: all of them in this worker."""
    cache: ResultCache | None = None
    """Answers that are given again; None: none are."""
    turns: Turns = field(init=False, repr=False)
    """Whose batch is handed to the engine next."""
    jpeg_rows: dict[tuple[int, int, int], JpegRow] = field(default_factory=dict, init=False, repr=False)
    """What is to become of JPEGs on its device, by width, height and orientation."""
    row_bytes: int = field(init=False)
    """Bytes of one picture in a slot."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        instances = share(self.settings.instance_count, self.processes)
        object.__setattr__(self, "turns", Turns(instances, ahead=PREFETCHED))
        row = self.decoder.input
        object.__setattr__(self, "row_bytes", math.prod(row.shape) * np.dtype(row.dtype).itemsize)

    def own(self, task: asyncio.Task[None]) -> None:
        """Keeps a task whose batch was abandoned until it has ended: an event loop holds its tasks weakly."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.loaded.config.name

    @property
    def settings(self) -> BatchingSettings:
        """What batchers are told."""
        return self.loaded.config.batching
