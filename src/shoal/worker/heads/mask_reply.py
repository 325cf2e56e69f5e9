"""A mask on its way into a reply: counted, and written in the form that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from shoal.batching.wire import REPLY_BYTES
from shoal.errors import InvalidRequest
from shoal.pictures.mask import encode_png, unseen
from shoal.v1.inference_pb2 import MaskForm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.v1.inference_pb2 import SegmentReply

    Indices = NDArray[np.uint8] | NDArray[np.uint16]

_MARGIN_BYTES: Final = 4096
"""Room in a reply for its frame, and for what is added to it later."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Rows and columns of a map of classes, chosen by number."""

    classes: Indices
    """``(h, w)``, uint8 or uint16; its largest value is none of them."""
    rows: NDArray[np.intp]
    """``(height,)``: rows of ``classes``; -1 where the model saw nothing."""
    columns: NDArray[np.intp]
    """``(width,)``, likewise."""

    def indices(self) -> Indices:
        """``(height, width)``, of the dtype of ``classes``."""
        chosen: Indices = self.classes.take(self.columns, axis=1).take(self.rows, axis=0)
        nothing = unseen(self.classes.itemsize)
        chosen[self.rows < 0] = nothing
        chosen[:, self.columns < 0] = nothing
        return chosen

    def pixels(self) -> NDArray[np.int64]:
        """The number of pixels by class; what is unseen is left out."""
        height, width = self.classes.shape
        times = np.outer(_times(self.rows, height), _times(self.columns, width))
        # Counting the map's cells by how often each is shown costs nothing, however large the mask is.
        return np.bincount(self.classes.ravel(), times.ravel()).astype(np.int64)


def fill(reply: SegmentReply, mask: Mask, labels: Sequence[str], form: int) -> None:
    """Writes ``mask`` into ``reply``.

    Raises:
        InvalidRequest: that makes it larger than ``REPLY_BYTES``.
    """
    reply.height, reply.width = len(mask.rows), len(mask.columns)
    reply.class_bytes = mask.classes.itemsize
    pixels = mask.pixels()
    for index in np.argsort(-pixels, kind="stable")[: np.count_nonzero(pixels)].tolist():
        label = labels[index] if index < len(labels) else ""
        reply.regions.add(index=index, label=label, pixels=int(pixels[index]))
    if form == MaskForm.MASK_FORM_RUNS:
        _add_runs(reply, mask.indices())
    else:
        data = np.ascontiguousarray(mask.indices(), f"<u{reply.class_bytes}")
        if form == MaskForm.MASK_FORM_PNG:
            reply.mask_png = encode_png((reply.width, reply.height), reply.class_bytes, data.data)
        elif data.nbytes <= REPLY_BYTES:
            reply.class_map = data.tobytes()
        else:
            raise _too_large(reply, form, data.nbytes)
    if reply.ByteSize() > REPLY_BYTES - _MARGIN_BYTES:
        raise _too_large(reply, form, reply.ByteSize())


def _add_runs(reply: SegmentReply, indices: Indices) -> None:
    """COCO's uncompressed run-length encoding of each region; see ``Region.counts``."""
    flat = indices.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    if 2 * len(starts) > REPLY_BYTES:  # a run takes two counts, of a byte or more
        raise _too_large(reply, MaskForm.MASK_FORM_RUNS, 2 * len(starts))
    ends = np.append(starts[1:], flat.size)
    found = flat[starts]
    for region in reply.regions:
        own = found == region.index
        edges = np.column_stack((starts[own], ends[own])).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size)
        region.counts.extend(counts[: len(counts) - (counts[-1] == 0)].tolist())


def _times(chosen: NDArray[np.intp], cells: int) -> NDArray[np.float64]:
    """How often each of ``cells`` is chosen."""
    return np.bincount(chosen[chosen >= 0], minlength=cells).astype(np.float64)


def _too_large(reply: SegmentReply, form: int, size: int) -> InvalidRequest:
    return InvalidRequest(
        f"the mask of {reply.width} x {reply.height} pixels takes {size:,} bytes or more as {MaskForm.Name(form)}; "
        f"the limit is {REPLY_BYTES:,}: ask for another mask_form, or for mask_size MASK_SIZE_MODEL"
    )
