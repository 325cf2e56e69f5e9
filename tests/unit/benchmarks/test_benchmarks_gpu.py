"""What the chapter on GPUs says is what the chart does."""

from __future__ import annotations

from benchmarks.common.files import read_result
from benchmarks.gpu.report import cores_of_a_gpu
from shoal.service.kubernetes import PoolPods


def test_the_charts_defaults_give_a_gpu_the_cores_that_the_table_says() -> None:
    measured = read_result("gpu_end_to_end")["sets"]["500x375"]
    needed = cores_of_a_gpu(measured, "gpu_stream", ("decode", "fetch", "rest", "triton"))
    pods = PoolPods()
    requested = 4 * float(pods.resources["requests"]["cpu"]) + float(pods.triton_resources["requests"]["cpu"])
    assert needed <= requested <= 1.25 * needed
