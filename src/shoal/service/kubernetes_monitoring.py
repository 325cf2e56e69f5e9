"""What watches and scales a service in a cluster: parts of the service file's ``kubernetes``; see docs/metrics.md."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from shoal.service.section import HttpAddress, Name, ObjectName, Section


class Monitoring(Section):
    """What Prometheus and Grafana find by themselves: PodMonitors, rules and dashboards."""

    enabled: bool = False
    """Whether the chart makes them. PodMonitors and rules need the Prometheus operator in the cluster."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of PodMonitors and rules by which your Prometheus finds them, such as ``release:
    kube-prometheus-stack``."""
    scrape_interval_seconds: int = Field(default=15, ge=1, le=60)
    """How often Prometheus reads the metrics. At most 60: rules look at windows of one minute, by default four
    scrapes."""
    rules: bool = True
    """Whether there is a PrometheusRule with the alerts, and with the recorded signals that dashboards and autoscaling
    need. If several releases share one Prometheus, only one of them should have it."""
    runbook_base: HttpAddress | None = None
    """URL of the folder above ``docs/alerts.md``, such as ``https://git.example/shoal/blob/main``. It begins the
    alerts' annotation ``runbook_url``. None: the annotation is the path alone."""
    dashboards: bool = True
    """Whether there are ConfigMaps with Grafana's dashboards."""
    dashboard_labels: dict[str, str] = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    """Labels by which Grafana's sidecar finds the dashboards."""
    dashboard_annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the dashboards, such as ``grafana_folder: Shoal``."""


class Scale(Section):
    """The least and the largest number of pods."""

    min_replicas: int = Field(default=1, ge=1, le=1000)
    """Number of pods without any load."""
    max_replicas: int = Field(ge=1, le=1000)
    """The largest number of pods."""

    @model_validator(mode="after")
    def _least_is_not_most(self) -> Scale:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) is over max_replicas ({self.max_replicas})")
        return self


class Schedule(Section):
    """A day's least numbers of pods. More are added where the signals ask for them."""

    timezone: str = "Etc/UTC"
    """Whose hours these are: a name of the IANA time zone database, such as ``Europe/Berlin``."""
    replicas_by_hour: list[Annotated[int, Field(ge=1, le=1000)]] = Field(min_length=24, max_length=24)
    """24 numbers, from 0:00 on, each day the same. A rise begins five minutes early, so that models are loaded in
    time."""

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, timezone: str) -> str:
        if "/" not in timezone or not re.fullmatch(r"[A-Za-z0-9_+/-]+", timezone):
            raise ValueError(f"{timezone!r}: expected a name as Europe/Berlin or Etc/UTC")
        return timezone

    @model_validator(mode="after")
    def _varies(self) -> Schedule:
        if len(set(self.replicas_by_hour)) == 1:
            raise ValueError("replicas_by_hour is the same all day: say min_replicas instead")
        return self


class PoolScale(Scale):
    """Scales a pool's workers by how many of their slots are in demand, and by the hour."""

    slot_demand: float = Field(default=0.7, gt=0, le=1)
    """The wanted demand, as a share of the pool's slots. Waiting requests count as demand. Above it, replicas are
    added."""
    queue_seconds: float = Field(default=0.25, gt=0, le=60)
    """How long the slowest tenth of requests may wait for a worker. Above it, replicas are added, too."""
    schedule: Schedule | None = None
    """How many pods there are at least, hour by hour; ``shoal plan`` finds these numbers. None: ``min_replicas`` at any
    hour."""

    @model_validator(mode="after")
    def _schedule_is_within(self) -> PoolScale:
        most = max(self.schedule.replicas_by_hour) if self.schedule else 0
        if most > self.max_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) is below the schedule's largest number ({most})")
        return self


class BatcherScale(Scale):
    """Scales a group of batchers by their load."""

    requests_per_second: float = Field(default=2000, gt=0)
    """The wanted load of each batcher. More batchers make smaller batches."""


class PipelineScale(Scale):
    """Scales a pipeline's pods by the pictures that they are busy with, and those that wait for them."""

    pictures_in_flight: float = Field(default=32, gt=0)
    """The wanted load of each pod."""


class RouterScale(Scale):
    """Scales the routers by their load."""

    min_replicas: int = Field(default=2, ge=1, le=1000)
    """Number of pods without any load."""
    calls_per_second: float = Field(default=1500, gt=0)
    """The wanted load of each router."""


class Autoscaling(Section):
    """What KEDA scales. A pool, batcher group, pipeline or router that isn't named here keeps its ``replicas``."""

    prometheus_url: HttpAddress | None = None
    """Address of the Prometheus that has the recorded signals (``monitoring.rules``), such as
    ``http://prometheus-operated.monitoring.svc:9090``."""
    authentication: ObjectName | None = None
    """The name of KEDA's TriggerAuthentication, if that Prometheus requires authentication."""
    authentication_modes: list[Literal["basic", "bearer", "custom", "tls"]] = Field(default_factory=list)
    """The kinds of credentials in it, such as ``[bearer]``: KEDA's ``authModes``. KEDA ignores other kinds."""
    poll_seconds: int = Field(default=15, ge=1, le=3600)
    """How often KEDA asks Prometheus."""
    scale_down_seconds: int = Field(default=300, ge=0, le=3600)
    """How long the load must have been lower before pods are removed."""
    pools: dict[Name, PoolScale] = Field(default_factory=dict)
    """By pool: how its workers scale."""
    batchers: dict[Name, BatcherScale] = Field(default_factory=dict)
    """By batcher group, ``shared`` or a model with ``batchers``: how it scales."""
    pipelines: dict[Name, PipelineScale] = Field(default_factory=dict)
    """By pipeline: how its pods scale."""
    router: RouterScale | None = None
    """How the routers scale. None: they stay at ``kubernetes.router.replicas``."""

    @model_validator(mode="after")
    def _prometheus_is_named(self) -> Autoscaling:
        if (self.pools or self.batchers or self.pipelines or self.router) and self.prometheus_url is None:
            raise ValueError("prometheus_url is missing: what is to be scaled is asked of Prometheus")
        return self

    @model_validator(mode="after")
    def _modes_are_of_an_authentication(self) -> Autoscaling:
        if (self.authentication is None) != (not self.authentication_modes):
            raise ValueError("authentication and authentication_modes go together: without modes KEDA ignores it")
        return self
