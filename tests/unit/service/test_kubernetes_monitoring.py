from __future__ import annotations

import pytest

from shoal.errors import ConfigurationError
from shoal.service.spec import Service, parse

PROMETHEUS = "prometheus_url: http://p:9090"
DAY = f"{{replicas_by_hour: {[3, *[2] * 23]}}}"
FLAT = f"{{replicas_by_hour: {[2] * 24}}}"
SHORT = f"{{replicas_by_hour: {[3, *[2] * 22]}}}"
ELSEWHERE = f"{{timezone: CET, replicas_by_hour: {[3, *[2] * 23]}}}"


def scaling(text: str, more: str = "") -> Service:
    return parse(f"{more}\nkubernetes: {{autoscaling: {{{text}}}}}", "s")


def test_nothing_watches_or_scales_unless_it_is_asked_for() -> None:
    cluster = Service().kubernetes
    assert not cluster.monitoring.enabled
    assert not cluster.autoscaling.pools
    assert cluster.autoscaling.router is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("pools: {default: {max_replicas: 3}}", "prometheus_url is missing"),
        (f"{PROMETHEUS}, pools: {{other: {{max_replicas: 3}}}}", "autoscaling.pools: other: pools has default"),
        (f"{PROMETHEUS}, batchers: {{tiny: {{max_replicas: 3}}}}", "autoscaling.batchers: tiny: there are shared"),
        (f"{PROMETHEUS}, router: {{max_replicas: 1}}", r"min_replicas \(2\) is over max_replicas \(1\)"),
        (f"{PROMETHEUS}, pools: {{default: {{min_replicas: 1}}}}", "max_replicas"),
        (f"{PROMETHEUS}, pools: {{default: {{max_replicas: 2, slot_demand: 1.5}}}}", "slot_demand"),
        (
            f"{PROMETHEUS}, pools: {{default: {{max_replicas: 2, schedule: {DAY}}}}}",
            "below the schedule's largest",
        ),
        (f"{PROMETHEUS}, pools: {{default: {{max_replicas: 9, schedule: {FLAT}}}}}", "the same all day"),
        (f"{PROMETHEUS}, pools: {{default: {{max_replicas: 9, schedule: {SHORT}}}}}", "at least 24 items"),
        (f"{PROMETHEUS}, pools: {{default: {{max_replicas: 9, schedule: {ELSEWHERE}}}}}", "expected a name as Europe"),
        ("authentication: a", "authentication and authentication_modes go together"),
        ("authentication_modes: [tls]", "authentication and authentication_modes go together"),
        ("authentication: a, authentication_modes: [password]", "authentication_modes.0"),
        ("prometheus_url: prometheus:9090", "must start with http"),
    ],
)
def test_contradictions_are_named(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        scaling(text)


def test_a_group_of_batchers_is_the_shared_one_or_a_models_own() -> None:
    text = f"{PROMETHEUS}, batchers: {{shared: {{max_replicas: 3}}, tiny: {{max_replicas: 2}}}}"
    assert set(scaling(text, "models: {tiny: {batchers: 1}}").kubernetes.autoscaling.batchers) == {"shared", "tiny"}
