"""A planned service file is started as it is: two replicas of two processes, beside a real Triton each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from shoal.client import AsyncClient
from shoal.plan import planning
from shoal.plan.document import parse
from shoal.plan.figures import settings_of
from shoal.plan.service_file import service_file
from shoal.plan.trial import Bench
from shoal.service import spec
from support.pictures import encode
from support.stack import running_stack
from support.tiny_models import BATCHING, add_mixing_classifier, add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path

PLAN = f"""\
models:
  tiny: {{batch_ms: {{1: 2, {BATCHING.max_batch_size}: 4}}, memory_gib: 1, latency_objective_ms: 50, per_s: 200}}
  mixing: {{batch_ms: {{1: 2, {BATCHING.max_batch_size}: 4}}, memory_gib: 1, latency_objective_ms: 50, per_s: 200}}
hardware: {{how_many: true, gpu_memory_gib: 4}}
sizing: {{process_images_per_s: 500}}
"""


def add_models(store: Path) -> None:
    add_tiny_classifier(store, runner="python")
    add_mixing_classifier(store, "mixing", runner="python")


async def test_shoal_up_serves_what_was_planned(tmp_path: Path) -> None:
    document = parse(PLAN, "plan.yaml")
    bench = Bench(requests=300, process_images_per_s=document.sizing.process_images_per_s)
    plan = planning.plan(document, planning.models_of(document, tmp_path), bench)
    assert plan.winner is not None
    written = service_file(plan, plan.winner)
    planned = spec.parse(written, "planned").pools["default"]
    assert (planned.replicas, planned.worker_processes) == (plan.gpus, 2) == (2, 2)
    with running_stack(tmp_path / "home", models=add_models, service=written) as stack:
        parts = {part.name for part in stack.state().parts}
        assert {f"worker-default-{n}.{process}" for n in (1, 2) for process in (1, 2)} <= parts
        assert {"triton-default-1", "triton-default-2", "batcher-tiny-1", "batcher-mixing-1"} <= parts
        async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=60) as client:
            image = await client.upload(encode(Image.new("RGB", (64, 48), (250, 0, 0))))
            for model in ("tiny", "mixing"):
                assert (await client.classify(image, model)).model_name == model
        for model in ("tiny", "mixing"):
            permits = [
                await stack.metric(f"worker-default-1.{process}", "shoal_worker_permit_limit", model=model)
                for process in (1, 2)
            ]
            instances = settings_of(plan)[model]["instance_count"]
            assert permits == [-(-instances // 2) + 1] * 2
