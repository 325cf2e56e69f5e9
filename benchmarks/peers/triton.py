"""NVIDIA Triton: decode and model in its Python backend, behind its dynamic batcher.

Settings, after https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/batcher.html and
https://github.com/triton-inference-server/python_backend#multiple-model-instance-support:

- ``dynamic_batching {}``: "as large as possible … and will not delay"; a delay of 5 ms, as Shoal's model has, is tried.
- ``instance_group``: each instance of a Python model is a process; one or two for each core are tried.
- Pictures are uint8 tensors of any length, as in the example; ``allow_ragged_batch`` lets requests of different
  lengths share a batch (https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/ragged_batching.html).

This server's Python backend reads arrays of numpy 2 wrongly, without a word: every byte of an input is the first one.
So its environment has numpy 1.26.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import clients
from benchmarks.peers.environments import Environment
from benchmarks.peers.peer import Launch
from benchmarks.peers.servers.plan import Choice
from shoal.runtime.endpoint import Endpoint
from shoal.triton import fetch_server
from shoal.triton.installation import Installation, default_folder, fetched_server
from shoal.triton.launch import Options, arguments, environment

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from benchmarks.peers.servers.plan import Plan
    from shoal.client.load.generator import LoadClient

_MODEL = "classifier"
_CHOICES = (
    Choice("2 instances", wait_ms=0),
    Choice("2 instances, 5 ms"),
    Choice("3 instances", processes=3, wait_ms=0),
    Choice("4 instances", processes=4, wait_ms=0),
    Choice("2 instances, batches of 4", batch_size=4, wait_ms=0),
)

_MODEL_FILE = """\
import os, sys
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)  # the stub's interpreter doesn't read it
from benchmarks.peers.servers.triton_model import TritonPythonModel
"""
_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input {{ name: "picture" data_type: TYPE_UINT8 dims: [-1] allow_ragged_batch: true }}
output {{ name: "classes" data_type: TYPE_INT32 dims: [5] }}
output {{ name: "probabilities" data_type: TYPE_FP32 dims: [5] }}
output {{ name: "batch" data_type: TYPE_INT32 dims: [1] }}
instance_group {{ kind: KIND_CPU count: {instances} }}
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
"""


@dataclass(frozen=True, slots=True)
class TritonPeer:
    """Implements ``Peer``."""

    name: str = "triton"
    title: str = "Triton"
    environment: Environment = field(default=Environment("triton", (), ("numpy==1.26.4",)))
    choices: tuple[Choice, ...] = _CHOICES

    def prepare(self) -> None:
        """See ``Peer``."""
        self.environment.prepare()
        fetch_server.fetch(default_folder(), lambda _text: None)

    def versions(self) -> dict[str, str]:
        """See ``Peer``."""
        return {fetch_server.WHEEL.package: fetch_server.WHEEL.version, **self.environment.versions()}

    def launch(self, plan: Plan) -> Launch:
        """See ``Peer``."""
        repository = Path(plan.scratch) / "models"
        version = repository / _MODEL / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL_FILE, encoding="utf-8")
        (version.parent / "config.pbtxt").write_text(_config(plan.choice))
        installation = Installation.of(fetched_server(default_folder()))
        options = Options(repository, Endpoint("127.0.0.1", plan.port), control="none")
        shared_memory = f"sp-{plan.port}-"
        command = arguments(installation, options, known="", shm_prefix=shared_memory)
        libraries = environment(installation)["LD_LIBRARY_PATH"]
        return Launch(command, {**self.environment.variables(), "LD_LIBRARY_PATH": libraries}, shared_memory)

    def connect(self, port: int) -> AbstractAsyncContextManager[LoadClient]:
        """See ``Peer``."""
        return clients.triton_grpc(port, _MODEL)


def _config(choice: Choice) -> str:
    return _CONFIG.format(name=_MODEL, batch=choice.batch_size, instances=choice.processes, delay=1000 * choice.wait_ms)


TRITON = TritonPeer()
