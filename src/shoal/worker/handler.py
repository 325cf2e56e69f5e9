"""A served model, as the batching protocol sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.runtime.priority import Priority
from shoal.worker.batch import PictureBatch

if TYPE_CHECKING:
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.worker.picture_model import PictureModel


class PictureHandler:
    """Implements ``shoal.batching.served_stream.Handler``."""

    def __init__(self, model: PictureModel) -> None:
        self._model = model

    @property
    def settings(self) -> BatchingSettings:
        """What batchers are told."""
        return self._model.settings

    def check(self, method: str) -> None:
        """Raises InvalidRequest; see ``Admission.check``."""
        self._model.admission.check(method)

    def begin(
        self,
        method: str,  # noqa: ARG002 - a checked one: there is one a model
        priority: Priority = Priority.INTERACTIVE,
    ) -> PictureBatch:
        """A batch of calls of ``method``, none of them more urgent than ``priority``."""
        return PictureBatch(self._model, priority)
