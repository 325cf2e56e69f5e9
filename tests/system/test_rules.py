"""The rules, as Prometheus' own checker and its own unit tests see them (Debian's package ``prometheus``)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from shoal.observe.ruleset import ALERTS, render, to_yaml

if TYPE_CHECKING:
    from pathlib import Path

MODEL = 'service="s",model="m"'
SERVED = f'{MODEL},pool="p",instance="w",component="worker"'
POOL = 'service="s",pool="p"'
ROUTER = 'service="s",component="router"'
CLUSTER = f'{ROUTER},envoy_cluster_name="pool/p"'
BATCHERS = f'{ROUTER},envoy_cluster_name="batcher/shared"'
GPU = f'{POOL},component="triton",gpu_uuid="g"'

Series = dict[str, str]
"""Name and labels to values in promtool's notation: ``first+step x times``, one every 15 s."""


def requests(**codes: int) -> Series:
    """So many a scrape, by status."""
    return {f'shoal_batcher_requests_total{{{MODEL},code="{code}"}}': f"0+{rate}x960" for code, rate in codes.items()}


def served(permit_seconds: float, batch: int = 8) -> Series:
    """Two permits of batches of up to 32, each in use for so many of a scrape's 15 seconds; ten batches a scrape."""
    return {
        f"shoal_worker_permit_seconds_total{{{SERVED}}}": f"0+{2 * permit_seconds}x960",
        f"shoal_worker_permit_limit{{{SERVED}}}": "2x960",
        f"shoal_worker_batch_limit{{{SERVED}}}": "32x960",
        f"shoal_worker_batch_size_sum{{{SERVED}}}": f"0+{10 * batch}x960",
        f"shoal_worker_batch_size_count{{{SERVED}}}": "0+10x960",
    }


def histogram(name: str, labels: str, **buckets: int) -> Series:
    """``le_1_024=5``: five a scrape of at most so much."""
    found = {bound.removeprefix("le_").replace("_", "."): rate for bound, rate in buckets.items()}
    return {f'{name}_bucket{{{labels},le="{bound}"}}': f"0+{rate}x960" for bound, rate in found.items()}


def away(labels: str, value: float) -> Series:
    return {f"up{{{labels}}}": f"{value}x960"}


def ended(**classes: int) -> Series:
    """So many calls a scrape for batchers, by class of status, as the router counts them."""
    name = "envoy_cluster_upstream_rq_xx"
    return {f'{name}{{{BATCHERS},envoy_response_code_class="{it}"}}': f"0+{rate}x960" for it, rate in classes.items()}


FIRING: dict[str, Series] = {
    "ShoalOverloaded": requests(OK=900, RESOURCE_EXHAUSTED=100),
    "ShoalNearlyOverloaded": served(14.5),
    "ShoalQueueSlow": histogram("shoal_batcher_queue_seconds", MODEL, le_0_256=5, le_1_024=10, **{"le_+Inf": 10}),
    "ShoalBatchesSmall": served(14, batch=4),
    "ShoalFailing": requests(OK=900, UNAVAILABLE=50, INTERNAL=50),
    "ShoalRouterFailing": ended(**{"2": 900, "5": 100}),
    "ShoalBudgetBurnsFast": requests(OK=900, UNAVAILABLE=100),
    "ShoalBudgetBurnsSlowly": requests(OK=990, DEADLINE_EXCEEDED=10),
    "ShoalDeadlinesMissed": requests(OK=900, DEADLINE_EXCEEDED=100),
    "ShoalStreamsBreak": {f"shoal_batcher_resent_total{{{MODEL}}}": "0+1x960"},
    "ShoalStoreSlow": histogram("shoal_worker_fetch_seconds", SERVED, le_0_512=5, le_2_048=10, **{"le_+Inf": 10}),
    "ShoalStoreFailing": {
        f'shoal_worker_fetches_total{{{SERVED},code="OK"}}': "0+90x960",
        f'shoal_worker_fetches_total{{{SERVED},code="UNAVAILABLE"}}': "0+10x960",
    },
    "ShoalGpuIdle": {f"nv_gpu_utilization{{{GPU}}}": "0.01x960"},
    "ShoalGpuStarved": {f"nv_gpu_utilization{{{GPU}}}": "0.3x960", **served(14.5)},
    "ShoalPartAway": away('service="s",component="batcher",instance="b"', 0),
    "ShoalPoolAway": {f"envoy_cluster_membership_healthy{{{CLUSTER}}}": "0x960"},
    "ShoalBatcherAway": {f"envoy_cluster_membership_healthy{{{BATCHERS}}}": "0x960"},
    "ShoalRouterAway": away('service="s",component="batcher",instance="b"', 1),
    "ShoalRouterFull": {f"envoy_cluster_upstream_rq_pending_overflow{{{BATCHERS}}}": "0+1x960"},
    "ShoalModelRefused": {f'shoal_model_sync_models{{{POOL},state="refused"}}': "1x960"},
    "ShoalModelsStale": {
        f'shoal_model_sync_success_timestamp_seconds{{{POOL},instance="stuck"}}': "1x960",
        f'shoal_model_sync_success_timestamp_seconds{{{POOL},instance="well"}}': "0+15x960",
    },
}
"""Each alert, and series that bring it about."""

QUIET: dict[str, Series] = {
    "ShoalOverloaded": requests(OK=1000, RESOURCE_EXHAUSTED=1),
    "ShoalNearlyOverloaded": served(10),
    "ShoalQueueSlow": histogram("shoal_batcher_queue_seconds", MODEL, le_0_256=10, le_1_024=10, **{"le_+Inf": 10}),
    "ShoalBatchesSmall": served(5, batch=4),
    "ShoalFailing": requests(OK=900, INVALID_ARGUMENT=500, NOT_FOUND=500, CANCELLED=500),
    "ShoalRouterFailing": ended(**{"2": 1000, "4": 500, "5": 1}),
    "ShoalBudgetBurnsFast": requests(OK=1000, UNAVAILABLE=1),
    "ShoalBudgetBurnsSlowly": requests(OK=10000, DEADLINE_EXCEEDED=10),
    "ShoalDeadlinesMissed": requests(OK=1000, DEADLINE_EXCEEDED=10),
    "ShoalStreamsBreak": {f"shoal_batcher_resent_total{{{MODEL}}}": "7x960"},
    "ShoalStoreSlow": histogram("shoal_worker_fetch_seconds", SERVED, le_0_512=10, le_2_048=10, **{"le_+Inf": 10}),
    "ShoalStoreFailing": {
        f'shoal_worker_fetches_total{{{SERVED},code="OK"}}': "0+90x960",
        f'shoal_worker_fetches_total{{{SERVED},code="NOT_FOUND"}}': "0+10x960",
    },
    "ShoalGpuIdle": {f"nv_gpu_utilization{{{GPU}}}": "0.5x960"},
    "ShoalGpuStarved": {f"nv_gpu_utilization{{{GPU}}}": "0.9x960", **served(14.5)},
    "ShoalPartAway": away('service="s",component="batcher",instance="b"', 1),
    "ShoalPoolAway": {f"envoy_cluster_membership_healthy{{{CLUSTER}}}": "1x960"},
    "ShoalBatcherAway": {f"envoy_cluster_membership_healthy{{{BATCHERS}}}": "1x960"},
    "ShoalRouterAway": {
        **away('service="s",component="batcher",instance="b"', 1),
        **away(f'{ROUTER},instance="a"', 0),
        **away(f'{ROUTER},instance="b"', 1),
    },
    "ShoalRouterFull": {f"envoy_cluster_upstream_rq_pending_overflow{{{BATCHERS}}}": "7x960"},
    "ShoalModelRefused": {f'shoal_model_sync_models{{{POOL},state="refused"}}': "0x960"},
    "ShoalModelsStale": {
        f'shoal_model_sync_success_timestamp_seconds{{{POOL},instance="starting"}}': "0x960",
        f'shoal_model_sync_success_timestamp_seconds{{{POOL},instance="well"}}': "0+15x960",
    },
}
"""The same things as they are on a good day."""


_SIDECAR = 'service="s",component="sidecar",instance="x",pool="p"'
FOREIGN: Series = {
    **away('service="s",component="sidecar",instance="x"', 0),
    f'envoy_cluster_membership_healthy{{{_SIDECAR},envoy_cluster_name="pool/p"}}': "0x960",
    f'envoy_cluster_membership_healthy{{{_SIDECAR},envoy_cluster_name="batcher/shared"}}': "0x960",
    f'envoy_cluster_upstream_rq_pending_overflow{{{_SIDECAR},envoy_cluster_name="inbound"}}': "0+1x960",
    f'envoy_cluster_upstream_rq_xx{{{_SIDECAR},envoy_cluster_name="batcher/shared",envoy_response_code_class="5"}}': (
        "0+9x960"
    ),
    f'nv_gpu_utilization{{{_SIDECAR},gpu_uuid="x"}}': "0x960",
}
"""Of a mesh's Envoy and of somebody else's Triton, whose targets have a label ``service``, too."""


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def expect(folder: Path, series: Series, *tests: dict[str, Any]) -> None:
    """Runs promtool's unit tests over the rules as rendered."""
    (folder / "rules.yaml").write_text(render())
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "15s", "input_series": inputs, "promql_expr_test": list(tests)}
    (folder / "test.yaml").write_text(
        to_yaml({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
    )
    promtool("test", "rules", folder / "test.yaml")


def firing(name: str, *, wanted: bool) -> dict[str, Any]:
    """Whether the alert fires once, four hours in."""
    expression = f'count by (alertname) (ALERTS{{alertname="{name}", alertstate="firing"}})'
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1}] if wanted else []
    return {"expr": expression, "eval_time": "4h", "exp_samples": samples}


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(render())
    promtool("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")


def test_every_alert_has_both_cases() -> None:
    assert [alert.name for alert in ALERTS] == list(FIRING) == list(QUIET)


@pytest.mark.parametrize("name", FIRING)
def test_it_fires_when_it_should(tmp_path: Path, name: str) -> None:
    expect(tmp_path, FIRING[name], firing(name, wanted=True))


@pytest.mark.parametrize("name", QUIET)
def test_it_is_quiet_on_a_good_day(tmp_path: Path, name: str) -> None:
    expect(tmp_path, QUIET[name], firing(name, wanted=False))


@pytest.mark.parametrize("name", QUIET)
def test_it_is_quiet_whatever_others_do(tmp_path: Path, name: str) -> None:
    expect(tmp_path, {**QUIET[name], **FOREIGN}, firing(name, wanted=False))


def test_the_series_of_others_are_recorded_nowhere(tmp_path: Path) -> None:
    none = {"expr": '{__name__=~"shoal:.+"}', "eval_time": "1h", "exp_samples": []}
    expect(tmp_path, FOREIGN, none)


def test_a_pool_is_asked_for_what_is_in_use_and_what_its_queue_would_take(tmp_path: Path) -> None:
    """Half of two slots, and 32 queued requests for batches of 32: half a slot each and half of the two."""
    queued = {f'shoal_batcher_queue_depth{{{MODEL},instance="b"}}': "32x960"}
    asked = {"expr": "shoal:pool_slot_demand:ratio", "eval_time": "1h"}
    sample = {"labels": f"shoal:pool_slot_demand:ratio{{{POOL}}}", "value": 1.0}
    expect(tmp_path, {**served(7.5), **queued}, {**asked, "exp_samples": [sample]})


def test_without_a_request_a_pool_is_asked_for_nothing(tmp_path: Path) -> None:
    asked = {"expr": "shoal:pool_slot_demand:ratio", "eval_time": "1h"}
    sample = {"labels": f"shoal:pool_slot_demand:ratio{{{POOL}}}", "value": 0}
    expect(tmp_path, served(0), {**asked, "exp_samples": [sample]})


def test_the_router_that_sees_fewest_workers_counts(tmp_path: Path) -> None:
    seen = {
        f'envoy_cluster_membership_healthy{{{CLUSTER},instance="{router}"}}': f"{count}x960"
        for router, count in (("a", 3), ("b", 1))
    }
    sample = {"labels": f"shoal:pool_workers_healthy:count{{{POOL}}}", "value": 1}
    expect(tmp_path, seen, {"expr": "shoal:pool_workers_healthy:count", "eval_time": "1h", "exp_samples": [sample]})


def test_streams_that_found_no_batcher_count_with_calls_that_did(tmp_path: Path) -> None:
    streams = {name.replace("batcher/", "streams/"): values for name, values in ended(**{"2": 2, "5": 4}).items()}
    sample = {"labels": 'shoal:router_failed:ratio_rate5m{service="s",batcher="shared"}', "value": 0.5}
    asked = {"expr": "shoal:router_failed:ratio_rate5m", "eval_time": "1h", "exp_samples": [sample]}
    expect(tmp_path, {**ended(**{"2": 2}), **streams}, asked)
