"""mosec: a web layer in Rust that batches and hands batches to Python processes.

Settings, after https://github.com/mosecorg/mosec#performance-tuning and
https://mosecorg.github.io/mosec/reference/arguments.html:

- "split the whole inference process into separate … stages" and "adjust the number of workers in each stage": two
  stages with several numbers of processes, and one stage, are tried.
- "max_wait_time should be less than the batch inference time": 5 ms, as Shoal's model has; a batch takes 30 ms or more.
- ``deserialize`` takes the body as it is: JSON "is not well supported" for images, and msgpack would copy once more.
- ``--timeout`` is 3 s by default, which a full queue of 12-megapixel pictures exceeds: 60 s.
- Threads of a process are set in OpenVINO itself, the page's "configure the threads".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.environments import Environment
from benchmarks.peers.peer import HttpPeer
from benchmarks.peers.servers.plan import Choice

if TYPE_CHECKING:
    from benchmarks.peers.servers.plan import Plan

_CHOICES = (
    Choice("two stages: 2 to decode, 2 to infer", options={"preprocess_processes": 2}),
    Choice("two stages: 2 to decode, 1 to infer", processes=1, threads=2, options={"preprocess_processes": 2}),
    Choice("one stage of 2"),
    Choice("one stage of 3", processes=3),
    Choice("one stage of 2, batches of 4", batch_size=4),
)


def _variables(plan: Plan) -> dict[str, str]:
    return {
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": str(plan.port),
        "MOSEC_PATH": f"{plan.scratch}/ipc",
        "MOSEC_TIMEOUT": "60000",
        "MOSEC_LOG_LEVEL": "warning",
    }


MOSEC = HttpPeer(
    "mosec",
    "mosec",
    Environment("mosec", ("mosec==0.9.8",)),
    _CHOICES,
    "benchmarks.peers.servers.mosec_server",
    "/inference",
    _variables,
)
