"""What a model of the plan file takes a GPU: by its profile, or by what the file itself says."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from shoal.errors import ConfigurationError
from shoal.simulate import costs
from shoal.simulate.costs import MeasuredCosts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoal.plan.document import PlannedModel


def of_milliseconds(batch_ms: Mapping[int, float], speed: Mapping[int, float]) -> MeasuredCosts:
    """From milliseconds by size and speeds by batches at once; see ``PlannedModel``."""
    sizes = tuple(sorted(batch_ms))
    gains = {1: 1.0, **speed}
    counts = sorted(gains)
    speeds = np.interp(range(1, counts[-1] + 1), counts, [gains[count] for count in counts])
    # A larger batch takes no less than a smaller one; where one was measured so, that was noise.
    times = accumulate((batch_ms[size] / 1000 for size in sizes), max)
    return MeasuredCosts(sizes, tuple(times), tuple(map(float, speeds)))


def read(model: PlannedModel, name: str, folder: Path) -> MeasuredCosts:
    """The costs that a model of the plan file names.

    Args:
        model: It.
        name: What it is called there.
        folder: The plan file's; profiles are found from there.

    Raises:
        ConfigurationError: there is no such profile, it has no measurement, or it is something else.
    """
    if model.batch_ms is not None:
        return of_milliseconds(model.batch_ms, model.speed)
    try:
        return costs.read(folder / str(model.profile))
    except ConfigurationError as error:
        raise ConfigurationError(f"models.{name}.profile: {error}") from error
