"""From a scenario file to a scenario: reads profiles and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.arrivals import trace
from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority
from shoal.simulate import costs, document
from shoal.simulate.scenario import Autoscaling, Fault, Load, Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.spreads import Constant, LogNormal
from shoal.simulate.stages import check_models
from shoal.simulate.times import ByHour, Recorded, Steady

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from shoal.simulate.scenario import Spread


def read(path: Path, seed: int | None = None, prepare: Mapping[str, Spread] | None = None) -> Scenario:
    """The scenario of a file.

    Args:
        path: The file.
        seed: In place of that in it.
        prepare: What preparing a picture takes, by model, in place of what the file says.

    Raises:
        ConfigurationError: the file, a profile or a trace that it names is wrong; names file, line or key, and reason.
            Or ``prepare`` lacks a model.
    """
    file = document.load(path)
    if prepare is not None:
        check_models(prepare, file.models)
    seed = file.seed if seed is None else seed
    loads = [load for number, one in enumerate(file.loads) for load in _loads(one, path.parent, f"{seed}/{number}")]
    return Scenario(
        models=[_model(name, model, path, (prepare or {}).get(name)) for name, model in file.models.items()],
        pools=[
            SimulatedPool(name=name, **pool.model_dump() | {"models": tuple(pool.models)})
            for name, pool in file.pools.items()
        ],
        loads=loads,
        seconds=file.seconds,
        warm_up=file.warm_up_seconds,
        path=file.path_ms / 1000,
        router=file.router_ms / 1000,
        zones=file.zones,
        balancing=file.balancing,
        faults=[Fault(**fault.model_dump()) for fault in file.faults],
        autoscaling=[Autoscaling(pool=pool, **scaling.model_dump()) for pool, scaling in file.autoscaling.items()],
        seed=seed,
    )


def _model(name: str, model: document.Model, path: Path, prepare: Spread | None) -> SimulatedModel:
    settings = model.batching.model_dump()
    objective = int(1000 * settings.pop("latency_objective_ms"))
    settings["preferred_batch_size"] = tuple(settings["preferred_batch_size"])
    batching = BatchingSettings(**settings, latency_objective_microseconds=objective)
    if model.batch_ms is not None:
        found = costs.of_times(model.batch_ms, model.speed)
    else:
        try:
            found = costs.read(path.parent / str(model.profile), model.profile_instances, batching.max_batch_size)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: models.{name}.profile: {error}") from None
    jitter = found.jitter if model.measured_jitter else None
    return SimulatedModel(name, batching, found, prepare or _times(model.prepare), jitter)


def _times(times: document.Times) -> Spread:
    if times.p50_ms is None or times.p99_ms is None:
        return Constant((times.ms or 0.0) / 1000)
    return LogNormal.through(times.p50_ms / 1000, times.p99_ms / 1000)


def _loads(load: document.Arrivals, folder: Path, seed: str) -> Iterator[Load]:
    told: dict[str, Any] = {"priority": Priority(load.priority), "timeout": load.timeout_seconds}
    if load.trace is not None:
        for (model, owner), times in trace.split(trace.read(folder / load.trace)).items():
            yield Load(model, Recorded(times), owner or load.owner, **told)
    else:
        assert load.model is not None
        yield Load(load.model, _times_of(load, seed), load.owner, **told)


def _times_of(load: document.Arrivals, seed: str) -> Steady | ByHour:
    varies = load.coefficient_of_variation
    if load.by_hour is not None:
        return ByHour(load.by_hour, load.hour_seconds, varies, seed)
    assert load.per_s is not None
    return Steady(load.per_s, varies, seed)
