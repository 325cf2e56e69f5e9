"""What became of a request, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.runtime.priority import BULK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.explain.explanation import Explanation
    from shoal.explain.views import BatcherVisit, BatchView, RegionView, Way, WorkerVisit

STAGES = {
    "broken": "on streams that broke",
    "permit": "waiting for a permit",
    "open": "in the open batch, at the worker",
    "closed": "from the batch's close to the answer",
    "fetch": "fetching the picture",
    "lookup": "looking for an answer to the same content",
    "slot": "waiting for a slot and a decoder",
    "decode": "decoding",
    "company": "waiting for company",
    "mates": "waiting for its batch-mates",
    "instance": "waiting for an instance",
    "compute": "computing, the whole batch",
    "reply": "making the reply",
    "send": "waiting to leave with its batch",
    "wire": "between batcher and worker, both ways",
}


def heading(image_uuid: str, each: Explanation) -> str:
    """What was called, and what came of it."""
    visit = each.batcher or each.worker
    assert visit is not None
    what = each.batcher.method.rpartition("/")[2].lower() if each.batcher else "a worker's part of"
    version = f" version {each.worker.model_version}" if each.worker else ""
    ended = f"answered {visit.code} after" if visit.code else "no answer yet after"
    return (
        f"{what} {image_uuid} · model {visit.model}{version} · "
        f"{ended} {milliseconds(each.total_seconds)} · {each.seconds_ago:,.1f} s ago"
    )


def sentences(each: Explanation) -> list[str]:
    """What happened, in order."""
    told = list(_batcher_sentences(each.batcher_part, each.batcher)) if each.batcher else []
    if each.worker:
        told += _worker_sentences(each.worker_part, each.worker, each.batcher)
    elif each.batcher and each.batcher.sent_as:
        told.append("no worker that was asked remembers it")
    return told


def _batcher_sentences(part: str, visit: BatcherVisit) -> Iterator[str]:
    ahead = f"; {visit.queued_ahead:,} requests of its queue were ahead of it" if visit.queued_ahead else ""
    key = f"key {visit.key_id or '(none)'}" + (", bulk" if visit.priority == "bulk" else "")
    yield f"{part}: for {key}, with {visit.timeout_seconds:,.3g} s to its deadline{ahead}"
    if visit.broken_streams:
        yield f"sent again: {_count(visit.broken_streams, 'stream')} broke under it"
    if visit.batch:
        yield _batch_sentence(visit.batch)
    elif visit.code:
        yield _unsent_sentence(visit)
    else:
        yield "still waiting: no worker has granted a permit"
    if visit.batch and visit.code not in {"", "OK"}:
        yield f"answered {visit.code}: {visit.message}"


def _unsent_sentence(visit: BatcherVisit) -> str:
    if visit.code == "DEADLINE_EXCEEDED":
        return f"expired in the queue: no worker granted a permit within its {visit.timeout_seconds:,.3g} s"
    if visit.code == "CANCELLED":
        return "its caller went away while it waited for a permit"
    return f"refused before it was sent, {visit.code}: {visit.message}"


def _batch_sentence(batch: BatchView) -> str:
    if not batch.closed_because:
        return f"its batch is open: {_count(batch.size, 'request')} so far, for {milliseconds(batch.open_seconds)}"
    return f"batch of {batch.size}, closed after {milliseconds(batch.open_seconds)} {_reason(batch)}"


def _reason(batch: BatchView) -> str:
    if batch.closed_because == "delay" and not batch.max_queue_delay_microseconds:
        return "because nothing waits for company: max_queue_delay_microseconds is 0"
    return {
        "preferred": f"because it was full: max_batch_size is {batch.max_batch_size}"
        if batch.size >= batch.max_batch_size
        else f"because it had reached a preferred_batch_size, {batch.size}",
        "delay": "because its oldest request had waited max_queue_delay_microseconds "
        f"({milliseconds(batch.max_queue_delay_microseconds / 1e6)})",
        "objective": "because waiting longer would have missed latency_objective_ms "
        f"({milliseconds(batch.latency_objective_microseconds / 1e6)})",
        "enough": "because its worker was idle, and more requests would hardly have made it cheaper",
        "bulk": "because bulk requests waited to fill it, and its worker could soon start it",
        "deadline": "because waiting longer would have missed its tightest deadline",
        "drain": "because the batcher was draining",
        "alone": "because a stream had broken under it before: such a request is tried again alone",
    }.get(batch.closed_because, f"because of {batch.closed_because}")


def _worker_sentences(part: str, visit: WorkerVisit, batcher: BatcherVisit | None) -> Iterator[str]:
    bulk = "; bulk: interactive pictures went first" if visit.priority == BULK else ""
    decoded = "; the model's device decoded it" if visit.decoded_by == "device" else ""
    if visit.regions:
        yield f"{part}: {_count(len(visit.regions), 'region')} of the picture{_known(visit.regions)}{bulk}"
        yield from (f"regions[{number}] {_region_sentence(way)}" for number, way in enumerate(visit.regions))
    else:
        where = f"region {_where(visit.region)}: " if visit.region else ""
        yield f"{part}: {where}{_run_sentence(visit, batcher)}{decoded}{bulk}"
    if not visit.code:
        now = next(reversed(visit.stage_seconds), "")
        yield f"at the worker now: {STAGES.get(now, now)}"
    elif batcher is None or (batcher.code and batcher.code != visit.code):
        yield f"the worker's own answer: {' '.join(filter(None, (visit.code, visit.message)))}"


def _known(regions: Sequence[Way]) -> str:
    hits = sum(way.result_cache == "hit" for way in regions)
    return f"; {hits} of them answered from the result cache" if any(way.result_cache for way in regions) else ""


def _region_sentence(way: Way) -> str:
    """Of one of several."""
    told = f"{_where(way.region)}: {_run_sentence(way, None)}" if way.region else _run_sentence(way, None)
    if not way.code:
        now = next(reversed(way.stage_seconds), "")
        return f"{told}; now: {STAGES.get(now, now)}"
    failed = f"; {' '.join(filter(None, (way.code, way.message)))}" if way.code != "OK" else ""
    ready = way.total_seconds - way.stage_seconds.get("send", 0.0)  # they leave together
    return f"{told}; ready after {milliseconds(ready)}{failed}"


def _where(region: RegionView) -> str:
    corner = f"({region.x:.4g}, {region.y:.4g}), {region.width:.4g} x {region.height:.4g}"
    return corner + (f", padded by {region.padding:.4g}" if region.padding else "") + ", square" * region.square


def _run_sentence(visit: Way, batcher: BatcherVisit | None) -> str:
    if visit.result_cache == "hit":
        return "answered from the result cache, as an earlier request with the same content: nothing was computed"
    if visit.device_refused:
        return f"the model's device couldn't decode it, so the worker did; {_straggler(visit)}"
    if visit.left_behind:
        late = "its batch went without it, since its picture wasn't ready in time"
        return f"{'its batch had no row left for it' if visit.put_off else late}; {_straggler(visit)}"
    if visit.executions > 1:
        return "the engine failed on its batch, so each picture of it ran alone"
    if visit.batch_size:
        return _executed(visit, batcher)
    return "it never reached the engine" if visit.code else "it has not reached the engine"


def _straggler(visit: Way) -> str:
    """Those of a batch that are ready by the same moment run together."""
    if visit.batch_size:
        others = visit.batch_size - 1
        return f"it ran later, with {_count(others, 'other straggler')}" if others else "it ran later, by itself"
    return "it never reached the engine" if visit.code else "it runs later"


def _executed(visit: Way, batcher: BatcherVisit | None) -> str:
    size = visit.batch_size
    sent = batcher.batch.size if batcher and batcher.batch else size
    why = "failed, was left behind or had its answer in the result cache" if visit.result_cache else ""
    missing = (
        f"; {_count(sent - size, 'other')} of its batch {why or 'failed or was left behind'}" if sent > size else ""
    )
    return f"{_count(size, 'picture')} ran together{missing}" if size > 1 else f"it ran by itself{missing}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def milliseconds(seconds: float) -> str:
    """A time, for people."""
    return f"{1000 * seconds:,.1f} ms"
