"""``shoal up``, ``shoal status`` and ``shoal down``: the whole service on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from shoal import spec
from shoal.home import Home
from shoal.local import service as local_service
from shoal.local import setup, state
from shoal.local.process import DRAIN_SECONDS, rotate
from shoal.modelstore import repository
from shoal.observe import logs

if TYPE_CHECKING:
    from shoal.spec import Service

_ROLES = 4
_DOWN_SECONDS = _ROLES * DRAIN_SECONDS + 10


def up(
    service: Path | None = typer.Option(None, "--service", help="The service file. Without: the default service."),
    port: int | None = typer.Option(
        None, "--port", envvar="SHOAL_PORT", min=0, max=65535, help="The public port. 0: any that is free."
    ),
    detach: bool = typer.Option(False, "--detach", help="Return once it is ready; it goes on in the background."),
    ready_fd: int | None = typer.Option(None, hidden=True, help="Where to write a byte once it is ready."),
) -> None:
    """Run the whole service on this machine, until Ctrl-C: it then finishes what is in flight and stops."""
    home = Home.default()
    wanted = spec.load(service)
    if state.owner(home) is not None:
        raise state.already_running(home)
    if detach:
        setup.prepare(wanted, home, _say)
        _detach(home, _arguments(service, port))
    else:
        _run(wanted, home, port, ready_fd)


def status(as_json: bool = typer.Option(False, "--json", help="One JSON object.")) -> None:
    """Say what is running here, and where. Exit code 1: nothing is."""
    home = Home.default()
    found = state.running(home)
    if found is None:
        _say(f"no service runs in {home.root}; 'shoal up' starts one")
        raise typer.Exit(1)
    view = _describe(found, home)
    if as_json:
        typer.echo(json.dumps(view, indent=2))
    else:
        _print_status(view)


def down() -> None:
    """Drain the service and stop it; returns once nothing of it is left."""
    home = Home.default()
    pid = state.owner(home)
    if pid is None:
        _say(f"no service runs in {home.root}")
    elif state.terminate(pid, _DOWN_SECONDS):
        _say("stopped")
    else:
        _say(f"process {pid} still runs after {_DOWN_SECONDS:.0f} s; see {home.logs}, or end it with 'kill -9 {pid}'")
        raise typer.Exit(1)


def _run(wanted: Service, home: Home, port: int | None, ready_fd: int | None) -> None:
    logs.configure(wanted.observe.log_level)

    def on_ready(ready: state.ServiceState) -> None:
        _print_ready(ready)
        if ready_fd is not None:
            os.write(ready_fd, b"\n")
            os.close(ready_fd)

    with state.exclusive(home):
        wanted = local_service.with_port(wanted, port)
        setup.prepare(wanted, home, _say)
        asyncio.run(local_service.run(wanted, home, say=_say, on_ready=on_ready))
    _say("stopped")


def _detach(home: Home, arguments: list[str]) -> None:
    """Starts ``shoal up`` in a session of its own and waits until it is ready or has failed."""
    log = home.logs / "supervisor.log"
    rotate(log)
    reader, writer = os.pipe()
    with log.open("ab") as output:
        begin = output.tell()
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "shoal", "up", *arguments, "--ready-fd", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writer,),
            start_new_session=True,
        )
    os.close(writer)
    try:
        ready = os.read(reader, 1)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise
    found = state.running(home)
    if not ready or found is None:
        typer.echo(log.read_bytes()[begin:].decode(errors="replace").rstrip(), err=True)
        raise typer.Exit(supervisor.wait() or 1)
    _print_ready(found)


def _arguments(service: Path | None, port: int | None) -> list[str]:
    return [
        *(("--service", str(service)) if service else ()),
        *(("--port", str(port)) if port is not None else ()),
    ]


def _print_ready(ready: state.ServiceState) -> None:
    age = time.time() - psutil.Process().create_time()
    typer.echo(f"ready in {age:.1f} s: {ready.target}")
    typer.echo(f"  models   {', '.join(repository.names(Path(ready.models))) or 'none'} ({ready.models})")
    for part in ready.parts:
        if part.metrics:
            typer.echo(f"  metrics  {part.metrics} ({part.name})")
    typer.echo(f"  logs     {ready.logs}")
    typer.echo("try: shoal classify samples/coffee.jpg --model efficientnet-lite0")


def _describe(found: state.ServiceState, home: Home) -> dict[str, Any]:
    view = found.model_dump()
    for part in view["parts"]:
        part.update(_usage(part["pid"]))
    view["supervisor"] = _usage(found.pid, alone=True)
    view["models"] = repository.names(Path(found.models))
    view["model_store"] = found.models
    view["home"] = str(home.root)
    return view


def _usage(pid: int | None, *, alone: bool = False) -> dict[str, float | None]:
    """Memory (bytes, shared pages divided among their users) and CPU seconds of a process and all it started."""
    try:
        root = psutil.Process(pid)
        family = [root, *(() if alone or pid is None else root.children(recursive=True))]
        memory = sum(process.memory_full_info().pss for process in family)
        cpu = sum(sum(process.cpu_times()[:2]) for process in family)
    except psutil.Error:
        return {"memory_bytes": None, "cpu_seconds": None}
    return {"memory_bytes": memory, "cpu_seconds": round(cpu, 2)}


def _print_status(view: dict[str, Any]) -> None:
    table = Table("part", "state", "pid", "restarts", "memory MB", "CPU s", "listens on", box=None)
    supervisor = {"name": "supervisor", "state": "ready" if view["ready"] else "waiting", "pid": view["pid"]}
    for part in (*view["parts"], {**supervisor, "restarts": 0, "listen": "", **view["supervisor"]}):
        memory, cpu = part["memory_bytes"], part["cpu_seconds"]
        table.add_row(
            part["name"],
            part["state"],
            str(part["pid"] or ""),
            str(part["restarts"]),
            "" if memory is None else f"{memory / 2**20:.0f}",
            "" if cpu is None else f"{cpu:.1f}",
            part["listen"],
        )
    Console().print(table)
    typer.echo(f"target {view['target']}, models: {', '.join(view['models']) or 'none'}, logs in {view['logs']}")


def _say(text: str) -> None:
    typer.echo(f"shoal: {text}", err=True)
