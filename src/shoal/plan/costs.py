"""What a model of the plan file takes a GPU: by its profile, or by what the file itself says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.simulate import costs

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.plan.document import PlannedModel
    from shoal.simulate.costs import MeasuredCosts


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
        return costs.of_times(model.batch_ms, model.speed)
    try:
        return costs.read(folder / str(model.profile))
    except ConfigurationError as error:
        raise ConfigurationError(f"models.{name}.profile: {error}") from error
