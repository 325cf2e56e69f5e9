"""The ways of ``shoal bench`` to send requests, and which options belong to which."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shoal.arrivals.trace import Survey, survey
from shoal.cli.calls import DEFAULT_MODELS
from shoal.client.load.generator import LoadRequest, PipelineRequest
from shoal.client.load.objective import Objective
from shoal.client.load.processes import processes_for
from shoal.errors import ConfigurationError
from shoal.modelconfig.model import Task
from shoal.runtime.threads import usable_cores

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.client.load.generator import LoadSettings
    from shoal.client.results import Image

PIPELINE = "pipeline"
"""What is told where a model's task would be, as `GET /v1/models` does."""
_AFTER_LAST = 1e-6
"""Seconds that a trace's window is longer than it, so that its last request is within."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom the requests are for."""

    task: Task | None
    """The model's; None: a pipeline is asked."""
    name: str

    def request(self, image: Image) -> LoadRequest | PipelineRequest:
        """One about ``image``."""
        return PipelineRequest(image, self.name) if self.task is None else LoadRequest(self.task, image, self.name)


@dataclass(frozen=True)
class Ways:
    """What the command line says of it: a closed loop, a rate, a trace, or the search for a rate.

    Raises:
        ConfigurationError: options don't go together, or the trace has a fault.
    """

    rate: float | None
    burstiness: float | None
    trace: Path | None
    find_rate: bool
    latency_slo_ms: float | None
    quantile: float | None
    report: bool
    played: Survey | None = field(default=None, init=False)
    """What is in the trace."""

    def __post_init__(self) -> None:
        chosen = {"--rate": self.rate is not None, "--trace": self.trace is not None, "--find-rate": self.find_rate}
        given = [name for name, is_given in chosen.items() if is_given]
        if len(given) > 1:
            raise ConfigurationError(f"{' and '.join(given)}: each says when requests leave: give one")
        if self.burstiness is not None and not (self.find_rate or self.rate is not None):
            raise ConfigurationError("--burstiness needs --rate or --find-rate: it says how those arrivals come")
        if self.find_rate and self.latency_slo_ms is None:
            raise ConfigurationError("--find-rate needs --latency-slo-ms: the objective that the rate has to keep")
        for name, value in {"--latency-slo-ms": self.latency_slo_ms, "--quantile": self.quantile}.items():
            if value is not None and not self.find_rate:
                raise ConfigurationError(f"{name} needs --find-rate")
        if self.find_rate:
            self.objective()
            if self.report:
                raise ConfigurationError("--report: a page is of one load: run it at the rate that --find-rate finds")
        if self.trace is not None:
            object.__setattr__(self, "played", survey(self.trace))

    def objective(self) -> Objective:
        """That of the search."""
        quantile = 0.99 if self.quantile is None else self.quantile
        return Objective((self.latency_slo_ms or 0.0) / 1000, quantile)

    def settings(self, common: LoadSettings, *, whole: bool) -> LoadSettings:
        """The load; ``whole``: nobody said how long, so that a trace is played to its end."""
        if self.played is None:
            return replace(common, rate=self.rate, burstiness=1.0 if self.burstiness is None else self.burstiness)
        left = self.played.seconds + _AFTER_LAST - common.warm_up_seconds
        if left < _AFTER_LAST:
            told = f"{self.trace}: its last request comes at {self.played.seconds:g} s, and the warm-up takes"
            raise ConfigurationError(f"{told} {common.warm_up_seconds:g} s: lower --warm-up")
        seconds = max(left if whole else min(common.duration_seconds, left), _AFTER_LAST)
        mean = self.played.arrivals / max(self.played.seconds, 1.0)
        return replace(common, trace=self.trace, rate=mean, duration_seconds=seconds)

    def asked(self, task: Task | None, model: str | None, pipeline: str | None) -> Asked:
        """Whom the requests are for: the model or pipeline given, or the task's; of a trace, the first that it names.

        Raises:
            ConfigurationError: there is none, a trace names others, or what is given isn't for pipelines.
        """
        if pipeline is not None:
            for name, value in {"--task": task, "--model": model, "--trace": self.trace}.items():
                if value is not None:
                    raise ConfigurationError(
                        f"{name} says which model is asked, and --pipeline asks none: leave one out"
                    )
            return Asked(None, pipeline)
        if self.played is not None and model is not None:
            raise ConfigurationError("--model: a trace names the model of each request: leave one of both out")
        task = task or Task.CLASSIFICATION
        first = next(iter(self.played.models)) if self.played else DEFAULT_MODELS.get(task)
        if model is None and first is None:
            raise ConfigurationError(f"--task {task} needs --model: there is no demo model for it")
        return Asked(task, model or str(first))

    def note(self) -> str:
        """What is played, for people."""
        assert self.played is not None
        models = ", ".join(f"{name} {number:,}" for name, number in self.played.models.most_common(5))
        told = f"{self.trace}: {self.played.arrivals:,} requests in {self.played.seconds:,.1f} s: {models}"
        if owners := len(self.played.owners):
            told += f"; the owners it names ({owners:,}) are not used: all requests have this command's key"
        return told


@dataclass(frozen=True, slots=True)
class Fleet:
    """How many processes send a load."""

    asked: int | None
    """None: as many as it takes."""
    streams: bool
    upload: bool

    def processes(self, settings: LoadSettings) -> int:
        """For this one."""
        if self.asked is not None:
            return self.asked
        return processes_for(settings, streams=self.streams, upload=self.upload, cores=usable_cores())
