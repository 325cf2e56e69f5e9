"""The JPEGs of one batch that its model decodes itself, on its device: they go into the slot as they came.

A device can't do it all: what it gives back is decoded here, and runs again without harm to the others.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np

from shoal.engine.triton import encoded_rows
from shoal.engine.triton.encoded_rows import JpegRow
from shoal.errors import Internal
from shoal.worker.decode_choice import DEVICE, DeviceReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.engine import Inference, Slot
    from shoal.engine.triton.encoded_slot import EncodedSlot
    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.header import PictureHeader
    from shoal.pictures.resample import Job
    from shoal.service.spec import Pool
    from shoal.worker.picture import Picture
    from shoal.worker.picture_model import PictureModel

log = logging.getLogger(__name__)

_STATUS, _WAIT, _DECODE, _COMPUTE = range(len(encoded_rows.REPORT_FIELDS))
_MICRO: Final = 1e-6
_MOST_SIZES: Final = 4096
"""Of pictures whose placement is remembered."""


class Refused(NamedTuple):
    """A picture that the device gave back."""

    picture: Picture
    data: bytes


class DeviceRows:
    """Of one batch. Belongs to one event loop."""

    def __init__(self, model: PictureModel) -> None:
        self._model = model
        self._choice = model.choice
        self._way = None if model.choice is None else model.choice.begin(model.loaded.config.name)

    def put(self, picture: Picture, slot: Slot) -> bool:
        """Copies a fetched JPEG into its row, if the device is to decode it; False: it is to be decoded here.

        So are regions: the cores decode a picture once for all that were asked for, the device would for each of them.
        """
        if self._choice is None or self._way is None or picture.region is not None:
            return False
        assert picture.fetched is not None, "it was fetched"
        data, now = picture.fetched.data, monotonic()
        if (header := self._model.decoder.device_header(data)) is None:
            return False
        pixels = header.width * header.height
        if self._way.choose(pixels, now) is DEVICE and _encoded(slot).put_jpeg(picture.row, data, self._row(header)):
            self._way.on_device(pixels, now)
            picture.way, picture.size = DEVICE, header.upright
            return True
        picture.charge = pixels, self._choice.on_cpu(pixels)
        return False

    def decoded_here(self, picture: Picture) -> None:
        """A picture that wasn't put there is decoded, or failed."""
        if self._choice is not None and picture.charge is not None:
            (pixels, expected), picture.charge = picture.charge, None
            self._choice.off_cpu(pixels, expected, picture.decode_seconds or None, monotonic())

    def ran(self, slot: Slot, pictures: Sequence[Picture], reports: NDArray[np.int32]) -> list[Refused]:
        """Learns from what the runner says of the slot's rows; those that it gave back, with their bytes.

        Raises:
            Internal: it gave back pixels.
        """
        told = reports.tolist()
        there = [report for picture, report in zip(pictures, told, strict=True) if picture.way is DEVICE]
        if any(report[_STATUS] == encoded_rows.NOT_NOW for report in there) and self._way is not None:
            self._way.refused(monotonic())
        elif there:
            self._learn([max(0, most) for most in map(max, zip(*there, strict=True))], len(there))
        refused = []
        for row, (picture, report) in enumerate(zip(pictures, told, strict=True)):
            if picture.way is DEVICE:
                picture.decode_seconds = max(0, report[_DECODE]) * _MICRO
                if report[_STATUS] != encoded_rows.DONE:
                    refused.append(Refused(picture, self.content(slot, row)))
            elif report[_STATUS] != encoded_rows.DONE:
                raise Internal(f"model {self._model.name!r}: its runner gave pixels back, status {report[_STATUS]}")
        return refused

    def content(self, slot: Slot, row: int) -> bytes:
        """A copy of the file in a row."""
        return _encoded(slot).content(row)

    def end(self) -> None:
        """The batch was executed, or never will be."""
        if self._way is not None:
            self._way.end(None, monotonic())

    def _row(self, header: PictureHeader) -> JpegRow:
        """What is to become of such a picture; many have the same size."""
        rows, key = self._model.jpeg_rows, (header.width, header.height, header.orientation)
        if (row := rows.get(key)) is None:
            if len(rows) >= _MOST_SIZES:
                rows.clear()
            job = self._model.decoder.whole_job(header)
            row = rows[key] = jpeg_row(header, job)
        return row

    def _learn(self, report: Sequence[int], count: int) -> None:
        """From the longest times of a batch's ``count`` JPEGs; all but those of one are the same."""
        seconds = DeviceReport(
            report[_WAIT] * _MICRO,
            report[_DECODE] * _MICRO,
            report[_COMPUTE] * _MICRO / self._model.settings.instance_count,
        )
        self._model.meter.decoded_on_device(count, seconds.decoded)
        if self._way is not None:
            self._way.end(seconds, monotonic())


def decodes_itself(config: ModelConfig, pool: Pool) -> bool:
    """Whether any of the model's pictures are decoded on its device; what a pool asks for in vain is logged."""
    if pool.engine != "triton" or pool.decode == "cpu":
        return False
    why_not = ""
    if not config.encoded:
        why_not = f"the model takes no {encoded_rows.INPUT}; `shoal model add --runner gpu` makes one that does"
    elif pool.jpeg_strictness == "strict":
        why_not = "a GPU doesn't notice what jpeg_strictness: strict forbids"
    if why_not and (config.encoded or pool.decode == "gpu"):
        log.warning("model %s: its pictures are decoded in the worker: %s", config.name, why_not)
    return not why_not


def without(inference: Inference, rows: Sequence[int]) -> Inference:
    """What the other rows gave."""
    assert inference.reports is not None, "the rows are some that were given back"
    kept = np.setdiff1d(np.arange(len(inference.reports)), rows)
    outputs = {name: values[kept] for name, values in inference.outputs.items()}
    return replace(inference, outputs=outputs, reports=inference.reports[kept])


def _encoded(slot: Slot) -> EncodedSlot:
    """The slots of models that decode are such ones."""
    return cast("EncodedSlot", slot)


def jpeg_row(header: PictureHeader, job: Job) -> JpegRow:
    """A job in the words of the rows' format."""
    number = encoded_rows.FILTERS.index(job.filter.value)
    return JpegRow(header.orientation, header.width, header.height, *job.box, *job.size, number)
