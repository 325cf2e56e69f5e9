"""One trace on a service and on the simulator, and how far one is from the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.simulate.judge import Figures, errors
from shoal.simulate.scenario import Load, Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.service import simulate
from shoal.validation.measure import by_model, calibrate, concurrencies, figures, play

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shoal.client import AsyncClient
    from shoal.client.load.generator import LoadRequest
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.simulate.fit import Fit
    from shoal.validation.measure import Trial


@dataclass(frozen=True, slots=True)
class Served:
    """A model of the service, and what it is asked for."""

    settings: BatchingSettings
    requests: Sequence[LoadRequest]
    """Sent in turn."""
    times: Sequence[float]
    """Seconds, in order."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of one model."""

    measured: Figures
    calculated: Figures
    lag: float
    """The latest that a call left after its time, in seconds: what the client was too busy for."""

    def errors(self) -> dict[str, float | None]:
        """See ``shoal.simulate.judge``."""
        return errors(self.measured, self.calculated)


async def compare(
    client: AsyncClient, models: Mapping[str, Served], trial: Trial, say: Callable[[str], None]
) -> dict[str, Comparison]:
    """Calibrates, plays, and calculates; by model.

    Raises:
        ConfigurationError: the trace ends within the warm-up, or too few calls were answered to find costs.
    """
    until = max((served.times[-1] for served in models.values() if served.times), default=0.0)
    if until <= trial.warm_up:
        raise ConfigurationError(f"the trace ends at {until:g} s: expected more than the warm-up, {trial.warm_up:g} s")
    fits = {}
    for name, served in models.items():
        callers = concurrencies(served.settings, trial.workers)
        say(f"{name}: {len(callers)} closed loops of {trial.calibration:g} s, up to {callers[-1]} callers")
        fits[name] = await calibrate(client, served.requests, served.settings, trial)
    say(f"the trace, {until:.0f} s")
    arrivals = {name: served.times for name, served in models.items()}
    replies = by_model(
        await play(client, {name: served.requests for name, served in models.items()}, arrivals, trial.timeout)
    )
    said = simulate(scenario(models, fits, trial, until)).models
    return {
        name: Comparison(
            figures(of, trial.warm_up, until), Figures.calculated(said[name]), max(reply.lag for reply in of)
        )
        for name, of in replies.items()
    }


def scenario(models: Mapping[str, Served], fits: Mapping[str, Fit], trial: Trial, until: float) -> Scenario:
    """What the simulator is told: of arrivals all, of costs what was found."""
    way = sum(each.way for each in fits.values()) / len(fits)
    return Scenario(
        models=[
            SimulatedModel(name, served.settings, fits[name].costs, fits[name].prepare, fits[name].jitter)
            for name, served in models.items()
        ],
        pools=[SimulatedPool("default", tuple(models), trial.workers, devices=trial.devices)],
        loads=[Load(name, served.times, timeout=trial.timeout) for name, served in models.items()],
        seconds=until,
        warm_up=trial.warm_up,
        path=way / 4,
        router=way / 4,
    )
