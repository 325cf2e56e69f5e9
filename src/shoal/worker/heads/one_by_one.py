"""A batch's replies where each picture is read by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from shoal.pictures.header import PictureSize
    from shoal.v1.inference_pb2 import ImageRequest

Reply = TypeVar("Reply")


class OneByOne(ABC, Generic[Reply]):
    """The half of a head that is the same for all of these."""

    @abstractmethod
    def reply(
        self, outputs: Mapping[str, NDArray[np.generic]], row: int, request: ImageRequest, picture_size: PictureSize
    ) -> Reply:
        """The answer to the item in ``row``; the shapes of ``outputs`` are those of ``Head``."""

    def replies(
        self,
        outputs: Mapping[str, NDArray[np.generic]],
        requests: Sequence[ImageRequest],
        picture_sizes: Sequence[PictureSize],
    ) -> list[Reply | Exception]:
        """``reply`` for each of the first rows, or what it raises for it."""
        replies: list[Reply | Exception] = []
        for row, (request, size) in enumerate(zip(requests, picture_sizes, strict=True)):
            try:
                replies.append(self.reply(outputs, row, request, size))
            except Exception as error:
                replies.append(error)
        return replies
