"""A plan's service file is one: Shoal's own loader takes it, and helm does."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from shoal.plan import document, planning
from shoal.plan.answers import answers
from shoal.plan.figures import figures
from shoal.plan.service_file import service_file
from shoal.plan.trial import Bench
from shoal.service import spec
from support.chart import CHART, HELM

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
models:
  a: {batch_ms: {1: 4, 8: 8}, memory_gib: 4, latency_objective_ms: 50, per_s: 900}
  b: {batch_ms: {1: 4, 8: 12}, memory_gib: 4, latency_objective_ms: 60, per_s: 300}
hardware: {servers: 4, gpus_per_server: 2, gpu_memory_gib: MEMORY}
prices: {per_gpu_hour: 2}
"""


def planned(folder: Path, file: str = FILE, memory: int = 24) -> planning.Plan:
    """Of short simulations: these say what is written of a plan, and not how good it is."""
    found = document.parse(file.replace("MEMORY", str(memory)), "plan.yaml")
    return planning.plan(found, planning.models_of(found, folder), Bench(2, requests=250, objectives=4))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> planning.Plan:
    return planned(tmp_path_factory.mktemp("plan"))


def test_the_real_simulator_s_plan_loads_as_a_service_file(shared: planning.Plan) -> None:
    assert shared.winner is not None
    assert shared.winner.surviving is not None
    service = spec.parse(service_file(shared, shared.winner), "f")
    assert service.pools["default"].replicas == shared.gpus
    assert shared.winner.surviving.total >= 3  # a server of two may go
    assert service.models["b"].latency_objective_ms == 60
    assert service.models["a"].max_batch_size == 8


def test_helm_renders_it(shared: planning.Plan, tmp_path: Path) -> None:
    if not HELM.exists():
        pytest.skip("no helm: make helm")
    assert shared.winner is not None
    values = tmp_path / "shoal.yaml"
    values.write_text(service_file(shared, shared.winner))
    done = subprocess.run(
        [HELM, "template", "shoal", CHART, "--kube-version", "1.35.0", "-f", values],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"replicas: {shared.gpus}" in done.stdout


def test_the_day_s_numbers_stand_in_a_comment_that_is_valid_without_its_marks(tmp_path: Path) -> None:
    plan = planned(tmp_path, FILE.replace("per_s: 900", f"by_hour: {[300] * 12 + [1800] * 12}"))
    assert plan.winner is not None
    text = service_file(plan, plan.winner)
    lines = [line[2:] for line in text.splitlines() if line.startswith("#   ")]
    service = spec.parse(text + "\n".join(lines), "f")
    scale = service.kubernetes.autoscaling.pools["default"]
    assert scale.schedule is not None
    assert scale.max_replicas == max(scale.schedule.replicas_by_hour) == plan.gpus
    assert scale.schedule.replicas_by_hour[0] == scale.min_replicas < plan.gpus


def test_models_that_share_no_gpu_get_pools_of_their_own(tmp_path: Path) -> None:
    found = planned(tmp_path, memory=5)
    assert found.winner is not None
    assert set(spec.parse(service_file(found, found.winner), "f").pools) == {"a", "b"}


def test_figures_and_answers_say_what_the_plan_says(shared: planning.Plan) -> None:
    made = figures(shared)
    # Batches of 8: 1,000 and 667 pictures a second of a GPU.
    assert made["bound"]["by_hour"][0] == pytest.approx(900 / 1000 + 300 / (8 / 0.012), abs=1e-3)
    assert made["gpus"] == shared.gpus
    needed = made["placements"][2]["needed"]["gpus"]["default"]
    assert made["placements"][2]["cost_a_day"] == 2 * 24 * needed
    told = dict(answers(shared, None))
    assert any("a 75%, b 25% of 1,200" in answer for answer in told.values())
    assert "--history CSV" in told["Is it predictive?"]
