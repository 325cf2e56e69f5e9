"""The alerts. docs/alerts.md explains each, in a section of its name."""

from __future__ import annotations

from shoal.observe.foreign import PARTS as EVERY_PART
from shoal.observe.foreign import ROUTER
from shoal.observe.recording import OBJECTIVE
from shoal.observe.rules import Alert, Condition

_MODEL = "model {{ $labels.model }} of {{ $labels.service }}"
_POOL = "pool {{ $labels.pool }} of {{ $labels.service }}"
_BATCHERS = "batchers {{ $labels.batcher }} of {{ $labels.service }}"
_SHARE = "{{ $value | humanizePercentage }}"
_SECONDS = "{{ $value | humanizeDuration }}"


def _burn(factor: float, *windows: str) -> tuple[Condition, ...]:
    """The error budget burns so many times too fast, over a long window and still in a short one.

    Windows and factors are those of https://sre.google/workbook/alerting-on-slos/: 2 % of 30 days' budget in an hour,
    5 % in six.
    """
    budget = round(1 - OBJECTIVE, 6)
    return tuple(Condition(f"shoal:model_bad:ratio_rate{window}", ">", factor * budget) for window in windows)


LOAD = (
    Alert(
        name="ShoalOverloaded",
        conditions=(Condition("shoal:model_refused:ratio_rate1m", ">", 0.01),),
        lasts="1m",
        severity="critical",
        summary=f"{_MODEL} refuses {_SHARE} of its requests: more comes than its pool can do",
        action="Add replicas to the pool, or raise max_replicas if autoscaling has reached it; meanwhile limit the "
        "loudest key's requests_per_second.",
    ),
    Alert(
        name="ShoalNearlyOverloaded",
        conditions=(Condition("shoal:pool_slot_demand:ratio", ">", 0.9),),
        lasts="3m",
        severity="warning",
        summary=f"{_POOL} is asked for {_SHARE} of its slots; at 100 % queues grow, then requests are refused",
        action="Add a replica now. With autoscaling on: see why it didn't (max_replicas, GPUs, Pending pods).",
    ),
    Alert(
        name="ShoalQueueSlow",
        conditions=(Condition("shoal:model_queue_seconds:p90_1m", ">", 0.25),),
        lasts="3m",
        severity="warning",
        summary=f"a tenth of the requests of {_MODEL} waits over {_SECONDS} for a worker",
        action="Look at the pool's slots, instances and decoding on the pool's dashboard, and widen what is full.",
    ),
    Alert(
        name="ShoalBatchesSmall",
        conditions=(
            Condition("shoal:model_batch_fill:ratio_5m", "<", 0.25),
            Condition("shoal:model_slot_use:ratio", ">", 0.8),
        ),
        on=("service", "pool", "model"),
        lasts="10m",
        severity="warning",
        summary=f"{_MODEL} fills its batches to {_SHARE} while its slots are busy: the engine works for too little",
        action="Give the model fewer batchers, a longer max_queue_delay_microseconds, or smaller preferred sizes.",
    ),
)

ERRORS = (
    Alert(
        name="ShoalFailing",
        conditions=(Condition("shoal:model_failed:ratio_rate5m", ">", 0.01),),
        lasts="2m",
        severity="critical",
        summary=f"{_MODEL} fails {_SHARE} of its requests by a fault of the service",
        action="Which code and which part: the model's dashboard, then 'shoal explain UUID' and the part's log.",
    ),
    Alert(
        name="ShoalRouterFailing",
        conditions=(Condition("shoal:router_failed:ratio_rate5m", ">", 0.01),),
        lasts="2m",
        severity="critical",
        summary=f"the router itself fails {_SHARE} of the calls for {_BATCHERS}: no batcher takes them",
        action="See whether batchers run, are ready and can be reached from the router: 'kubectl get pods', the logs.",
    ),
    Alert(
        name="ShoalBudgetBurnsFast",
        conditions=_burn(14.4, "1h", "5m"),
        on=("service", "model"),
        lasts="2m",
        severity="critical",
        summary=f"{_MODEL} ended {_SHARE} of its requests badly within an hour: 30 days' budget lasts two",
        action="See which of refused, late or failed it is on the overview, and go on as for that alert.",
    ),
    Alert(
        name="ShoalBudgetBurnsSlowly",
        conditions=_burn(6, "6h", "30m"),
        on=("service", "model"),
        lasts="15m",
        severity="warning",
        summary=f"{_MODEL} ended {_SHARE} of its requests badly within six hours: 30 days' budget lasts five",
        action="The same as ShoalBudgetBurnsFast, by daylight.",
    ),
    Alert(
        name="ShoalDeadlinesMissed",
        conditions=(Condition("shoal:model_late:ratio_rate5m", ">", 0.05),),
        lasts="5m",
        severity="warning",
        summary=f"{_SHARE} of the requests of {_MODEL} miss their deadline",
        action="Compare the callers' timeout with p99 on the model's dashboard; 'shoal explain UUID' says where the "
        "time went.",
    ),
    Alert(
        name="ShoalStreamsBreak",
        conditions=(Condition("sum by (service, model) (rate(shoal_batcher_resent_total[5m]))", ">", 0),),
        lasts="10m",
        severity="warning",
        summary=f"batches of {_MODEL} keep losing their worker and are sent again",
        action="Look for workers that restart or run out of memory.",
    ),
)

STORE = (
    Alert(
        name="ShoalStoreSlow",
        conditions=(Condition("shoal:pool_fetch_seconds:p90_5m", ">", 0.5),),
        lasts="5m",
        severity="warning",
        summary=f"a tenth of the pictures of {_POOL} takes over {_SECONDS} to fetch",
        action="Look at the object store and the network to it; raise fetch_concurrency only if the store is idle.",
    ),
    Alert(
        name="ShoalStoreFailing",
        conditions=(Condition("shoal:pool_fetch_failed:ratio_rate5m", ">", 0.01),),
        lasts="2m",
        severity="critical",
        summary=f"{_SHARE} of the fetches of {_POOL} fail: the object store is away or refuses our credentials",
        action="INTERNAL on the data dashboard: the credentials; UNAVAILABLE: the store.",
    ),
)

GPU = (
    Alert(
        name="ShoalGpuIdle",
        conditions=(Condition("avg_over_time(shoal:pool_gpu_utilization:ratio[1h])", "<", 0.05),),
        lasts="1h",
        severity="info",
        summary=f"the GPUs of {_POOL} had work in {_SHARE} of the last hour",
        action="Take replicas away, lower min_replicas, or serve the pool's models in another pool.",
    ),
    Alert(
        name="ShoalGpuStarved",
        conditions=(
            Condition("shoal:pool_gpu_utilization:ratio", "<", 0.5),
            Condition("shoal:pool_slot_demand:ratio", ">", 0.9),
        ),
        on=("service", "pool"),
        lasts="10m",
        severity="warning",
        summary=f"the GPUs of {_POOL} have work in {_SHARE} of the time although its slots are full",
        action="Something before the GPU is too slow: decoding (more CPU, decode_threads), fetching, or too few "
        "instances.",
    ),
)

PARTS = (
    Alert(
        name="ShoalPartAway",
        conditions=(Condition(f'up{{service!="",{EVERY_PART}}}', "==", 0),),
        lasts="2m",
        severity="warning",
        summary="{{ $labels.component }} {{ $labels.instance }} of {{ $labels.service }} doesn't answer Prometheus",
        action="'shoal status' or 'kubectl get pods', then the part's log.",
    ),
    Alert(
        name="ShoalPoolAway",
        conditions=(Condition("shoal:pool_workers_healthy:count", "==", 0),),
        lasts="1m",
        severity="critical",
        summary=f"{_POOL} has no worker that takes batches: its models answer UNAVAILABLE",
        action="See why the workers aren't ready: the model store, Triton, the GPU, the log.",
    ),
    Alert(
        name="ShoalBatcherAway",
        conditions=(Condition("shoal:batchers_healthy:count", "==", 0),),
        lasts="1m",
        severity="critical",
        summary=f"the router has none of the {_BATCHERS}: calls of their models answer UNAVAILABLE",
        action="See why the batchers aren't there or aren't ready: 'kubectl get pods' or 'shoal status', the log.",
    ),
    Alert(
        name="ShoalRouterAway",
        conditions=(Condition("shoal:routers_up:count", "==", 0),),
        lasts="1m",
        severity="critical",
        summary="no router of {{ $labels.service }} answers Prometheus: callers reach nothing",
        action="See why none runs: 'kubectl get pods' or 'shoal status', the log; then whether Prometheus may ask it.",
    ),
    Alert(
        name="ShoalRouterFull",
        conditions=(
            Condition(f"sum by (service) (rate(envoy_cluster_upstream_rq_pending_overflow{{{ROUTER}}}[5m]))", ">", 0),
        ),
        lasts="2m",
        severity="critical",
        summary="the router of {{ $labels.service }} refuses calls: router.max_requests or 1,000 streams are in flight",
        action="Add router replicas, or raise router.max_requests if memory allows.",
    ),
    Alert(
        name="ShoalModelRefused",
        conditions=(Condition('max by (service, pool) (shoal_model_sync_models{state="refused"})', ">", 0),),
        lasts="5m",
        severity="warning",
        summary="{{ $value }} published models are damaged or faulty; " + _POOL + " goes on with what it had",
        action="The log of model-sync says what is wrong with which; push it again.",
    ),
    Alert(
        name="ShoalModelsStale",
        conditions=(
            Condition(
                # 0: it wasn't yet; its pod isn't ready before.
                "time() - max by (service, pool, instance) (shoal_model_sync_success_timestamp_seconds > 0)",
                ">",
                900,
            ),
        ),
        lasts="5m",
        severity="warning",
        summary="{{ $labels.instance }} in " + f"{_POOL} was last in line with the published models {_SECONDS} ago",
        action="The log of model-sync: the store is away, its credentials are refused, or the disk is full.",
    ),
)
