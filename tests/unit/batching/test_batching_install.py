"""``pip install 'shoal[batching]'`` is all that a worker of one's own and its batcher import, and no more than that."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
from packaging.utils import canonicalize_name
from write_constraints import closure

PARTS = {
    "worker": "from shoal.batching import BatchingSettings, Call, Requests, Server, run",
    "batcher": "import shoal.cli.serve.batcher, shoal.batcher.process, shoal.batcher.envoy_door, pyvoy, uvloop, "
    "shoal.batcher.dispatch, shoal.batcher.grpcio_door, shoal.runtime.envoy_admin, shoal.explain.endpoint, "
    "shoal.explain.views",
}
IF_THERE = {"grpcio-tools", "setuptools"}
"""grpcio imports the one where it is installed, and that the other."""


@pytest.mark.parametrize("part", PARTS)
def test_what_is_imported_comes_with_the_extra(part: str) -> None:
    program = f"import sys\n{PARTS[part]}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    homes = metadata.packages_distributions()
    imported = [{canonicalize_name(home) for home in homes[name]} for name in done.stdout.split() if name in homes]
    assert {"grpcio"} in imported
    known = closure("shoal", frozenset({"batching"})).keys() | IF_THERE
    assert not [packages for packages in imported if not packages & known]


def test_the_extra_brings_no_engine() -> None:
    brought = closure("shoal", frozenset({"batching"})).keys()
    assert not brought & {"openvino", "opencv-python-headless", "numpy", "onnx", "pillow", "tritonclient"}


def test_the_protocol_alone_imports_no_server() -> None:
    program = "import sys, shoal.batching.v1.batching_pb2; print('grpc_reflection' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
