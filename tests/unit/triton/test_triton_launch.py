from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.ports import FreePorts
from shoal.triton import installation, launch
from shoal.triton.installation import Installation, fetched_server
from shoal.triton.launch import Options

HERE = Options(Path("models"), Endpoint("127.0.0.1", 8001))


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_configured_server_comes_before_the_path_and_that_before_the_fetched_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(ConfigurationError, match=r"no tritonserver is on the PATH or at .*shoal triton fetch"):
        installation.find(None, tmp_path)
    fetched = program(fetched_server(tmp_path))
    (fetched.parents[3] / "nvidia_pytriton.libs").mkdir()
    (fetched.parents[1] / "backends").mkdir()
    found = installation.find(None, tmp_path)
    assert (found.server, found.backends) == (fetched, fetched.parents[1] / "backends")
    assert found.libraries
    assert found.packages
    on_path = program(tmp_path / "path" / "tritonserver")
    assert installation.find(None, tmp_path) == Installation(on_path, None)
    configured = program(tmp_path / "opt" / "bin" / "tritonserver")
    (tmp_path / "opt" / "backends").mkdir()
    assert installation.find(str(configured), tmp_path) == Installation(configured, tmp_path / "opt" / "backends")
    (tmp_path / "opt" / "backends" / "python").mkdir()
    assert installation.find(str(configured), tmp_path).has_backend("python")
    assert not installation.find(str(configured), tmp_path).has_backend("onnxruntime")
    for wrong in ("nothing", "opt"):
        with pytest.raises(ConfigurationError, match=f"{wrong}: not a program; triton_server"):
            installation.find(str(tmp_path / wrong), tmp_path)


def test_a_version_gets_the_flags_that_it_knows() -> None:
    server = Installation(Path("/opt/tritonserver"), Path("/opt/backends"))
    old = launch.arguments(server, HERE, known="--help", shm_prefix="p-")
    new = launch.arguments(server, HERE, known="--allow-client-shm <boolean>", shm_prefix="p-")
    assert set(new) - set(old) == {"--allow-client-shm=true"}
    assert {"--grpc-port=8001", "--allow-http=false", "--allow-metrics=false"} < set(old)
    assert "--model-control-mode=explicit" in old
    assert f"--model-repository={Path.cwd() / 'models'}" in old
    assert "--backend-directory=/opt/backends" in old
    assert "--backend-config=python,shm-region-prefix-name=p-" in old


def test_the_command_line_says_all_there_is_to_say() -> None:
    options = Options(
        repository=Path("models"),
        listen=Endpoint("127.0.0.1", 1),
        metrics=Endpoint("127.0.0.1", 2),
        control="none",
        models=("a", "b"),
        client_shared_memory=False,
        auto_complete=True,
        server="/opt/tritonserver",
        packages=Path("/packages"),
        gpus="2",
    )
    words = " ".join(options.command())
    assert words.endswith(
        "serve triton --repository models --listen 127.0.0.1:1 --control none --metrics 127.0.0.1:2 "
        "--model a --model b --no-client-shared-memory --auto-complete --server /opt/tritonserver --packages /packages "
        "--gpus 2"
    )


def test_the_server_uses_the_gpus_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    server = Installation(Path("/opt/tritonserver"), Path("/opt/backends"))
    assert launch.environment(server)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert launch.environment(server, "3")["CUDA_VISIBLE_DEVICES"] == "3"


def serve(folder: Path, port: int, script: str) -> subprocess.CompletedProcess[str]:
    """Becomes a server that is a script."""
    command = Options(
        folder, Endpoint("127.0.0.1", port), server=str(program(folder / "bin" / "server", script))
    ).command()
    assert command[0] == sys.executable
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_becomes_the_server(tmp_path: Path) -> None:
    done = serve(tmp_path, FreePorts()().port, '#!/bin/sh\necho "$@"; exit 7\n')
    assert (done.returncode, done.stderr) == (7, "")
    assert f"--model-repository={tmp_path}" in done.stdout


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(tmp_path, port, "#!/bin/sh\n")
    assert done.returncode == 2
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr


def test_memory_of_dead_servers_is_removed_and_of_living_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_SHM", tmp_path)
    ours = launch._shm_prefix()
    living = tmp_path / f"{ours}1234-region"
    living.touch()
    names = ours.split("-")
    dead = [
        tmp_path / "-".join((*names[:3], "999999999", names[4], "1234-region")),
        tmp_path / "-".join((*names[:4], "1", "1234-region")),  # the number came again
    ]
    other = tmp_path / f"shoal-triton-1-{os.getpid()}-1-region"  # of another namespace
    for path in (*dead, other):
        path.touch()
    assert launch._shm_prefix() == ours
    assert set(tmp_path.iterdir()) == {living, other}
