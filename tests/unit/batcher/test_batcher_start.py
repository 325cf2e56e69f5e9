"""What a batcher's start has to import: each module is time that callers wait for a batcher that crashed."""

from __future__ import annotations

import subprocess
import sys

import pytest

PARENT = "import shoal.cli, shoal.cli.serve.batcher, shoal.batcher.process, shoal.batcher.core, shoal.batcher.target"
INSIDE = (
    "import shoal.batcher.envoy_door, shoal.batcher.dispatch, shoal.batcher.request, shoal.explain.endpoint, "
    "shoal.observe.metrics"
)


LIBRARIES = {"pydantic", "ruamel.yaml", "aiohttp"}


@pytest.mark.parametrize(
    ("program", "spared"),
    [(PARENT, {"grpc", "google.protobuf", "prometheus_client", *LIBRARIES}), (INSIDE, LIBRARIES)],
    ids=["what starts Envoy", "inside Envoy"],
)
def test_a_start_imports_only_what_it_needs(program: str, spared: set[str]) -> None:
    words = [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"]
    imported = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert "shoal.batcher.core" in imported
    assert not spared & set(imported)
