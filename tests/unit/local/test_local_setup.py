from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.local import setup
from shoal.modelstore import repository
from shoal.service.home import Home
from shoal.service.spec import Pool, parse

if TYPE_CHECKING:
    from pathlib import Path


def server(folder: Path, *backends: str) -> str:
    program = folder / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    for backend in backends:
        (folder / "backends" / backend).mkdir(parents=True)
    return str(program)


def test_a_triton_without_onnx_runtime_needs_the_python_runner(tmp_path: Path) -> None:
    fetched, container = server(tmp_path / "a", "python"), server(tmp_path / "b", "python", "onnxruntime")
    assert setup.needs_python_runner(Pool(engine="triton", triton_server=fetched))
    assert not setup.needs_python_runner(Pool(engine="triton", triton_server=container))
    assert not setup.needs_python_runner(Pool())
    with pytest.raises(ConfigurationError, match="not a program; triton_server names"):
        setup.needs_python_runner(Pool(engine="triton", triton_server=str(tmp_path / "none")))


@pytest.mark.parametrize("pool", ["models: [other]", "engine: triton, triton_url: 'localhost:1'"])
def test_no_model_is_added_that_no_engine_of_ours_would_serve(tmp_path: Path, pool: str) -> None:
    service = parse(
        f"pools: {{default: {{{pool}}}}}\nobject_store: {{url: 's3://elsewhere', managed: false}}", "shoal.yaml"
    )
    said: list[str] = []
    setup.prepare(service, Home(tmp_path), said.append)
    assert said == []
    assert repository.names(tmp_path / "models") == []
