"""The Python-backend runner, without Triton: its batching and its errors."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shoal.modelstore.making import runners
from support.tiny_models import add_tiny_detector

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig


class FakeTensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name = name
        self.array = array

    @classmethod
    def from_dlpack(cls, name: str, capsule: object) -> FakeTensor:
        return cls(name, np.from_dlpack(_Capsule(capsule)))


class _Capsule:
    """What numpy takes an array from."""

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> object:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class FakeRequest:
    def __init__(self, pictures: np.ndarray, *wanted: str) -> None:
        self.pictures = pictures
        self.wanted = wanted

    def requested_output_names(self) -> tuple[str, ...]:
        return self.wanted


@pytest.fixture
def detector(tmp_path: Path) -> ModelConfig:
    return add_tiny_detector(tmp_path, runner="python")


@pytest.fixture
def model(detector: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runner as the store has it, loaded."""
    triton: Any = ModuleType("triton_python_backend_utils")
    triton.Tensor = FakeTensor
    triton.TritonError = str
    triton.InferenceResponse = lambda tensors=(), error=None: SimpleNamespace(tensors=tensors, error=error)
    triton.Logger = SimpleNamespace(log_info=lambda _: None)
    triton.get_input_tensor_by_name = lambda request, name: request.pictures
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    spec = importlib.util.spec_from_file_location("runner", detector.path.with_name("model.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    made.initialize(arguments(detector))
    return made


def arguments(config: ModelConfig) -> dict[str, str]:
    told = {
        "input": [{"name": config.input.name}],
        "output": [{"name": output.name} for output in config.outputs],
        "instance_group": [{"count": 2}],
    }
    return {
        "model_config": json.dumps(told),
        "model_repository": str(config.path.parent.parent),
        "model_version": "1",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
        "model_instance_name": "tiny_0_0",
    }


def pictures(count: int, grey: int) -> np.ndarray:
    return np.full((count, 32, 32, 3), grey, np.uint8)


def test_requests_run_as_one_batch_and_each_gets_its_rows(model: Any) -> None:
    sizes: list[int] = []
    run = model._run
    model._run = lambda batch: (sizes.append(len(batch)), run(batch))[1]
    first, second = model.execute(
        [FakeRequest(pictures(1, 255), "scores"), FakeRequest(pictures(2, 0), "boxes", "scores")]
    )
    assert sizes == [3]
    assert [tensor.name for tensor in first.tensors] == ["scores"]
    np.testing.assert_allclose(first.tensors[0].array, np.ones((1, 4)), atol=0.01)
    assert {tensor.name: tensor.array.shape for tensor in second.tensors} == {"boxes": (2, 4, 4), "scores": (2, 4)}
    np.testing.assert_allclose(second.tensors[1].array, np.zeros((2, 4)), atol=0.01)


def test_a_request_that_fails_fails_alone(model: Any) -> None:
    bad = FakeRequest(np.zeros((1, 8, 8, 3), np.uint8), "scores")
    good, broken = model.execute([FakeRequest(pictures(1, 255), "scores"), bad])
    assert good.error is None
    assert broken.error


def test_another_version_gets_its_runner_too(detector: ModelConfig) -> None:
    store = detector.path.parents[2]
    second = add_tiny_detector(store, version=2)
    assert second.backend == "python"
    assert second.path.with_name("model.py").read_bytes() == runners.files("python")["model.py"].read_bytes()
    assert "default_model_filename" not in (store / "tiny-detector" / "config.pbtxt").read_text()
