"""``shoal status`` and ``shoal down``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from shoal.local import state
from shoal.local.keeper import State
from shoal.local.plan import STOP_ORDER, Component
from shoal.local.process import DRAIN_SECONDS
from shoal.modelstore import repository
from shoal.runtime.endpoint import Endpoint
from shoal.service.home import Home
from shoal.service.worker_report import WorkerReport

_DOWN_SECONDS = len(STOP_ORDER) * DRAIN_SECONDS + 10


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


def _describe(found: state.ServiceState, home: Home) -> dict[str, Any]:
    view = found.model_dump()
    for part in view["parts"]:
        part.update(_usage(part["pid"]))
        if part["role"] == Component.WORKER:
            report = WorkerReport.load(home, Endpoint.parse(part["listen"]))
            part.update(models=report.models, not_served=report.reasons)
            if part["state"] == State.READY and not report.ready:
                part["state"] = "not ready"
    view["supervisor"] = _usage(found.pid, alone=True)
    view["models"] = repository.names(Path(found.models))
    view["model_store"] = found.models
    view["home"] = str(home.root)
    return view


def _usage(pid: int | None, *, alone: bool = False) -> dict[str, float | None]:
    """Memory (bytes, shared pages divided among their users) and CPU seconds of a process and all it started."""
    if pid is None:
        return {"memory_bytes": None, "cpu_seconds": None}
    try:
        root = psutil.Process(pid)
        family = [root, *(() if alone else root.children(recursive=True))]
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
    for part in view["parts"]:
        for reason in part.get("not_served", ()):
            typer.echo(f"{part['name']}: {reason}")
    typer.echo(f"target {view['target']}, models: {', '.join(view['models']) or 'none'}, logs in {view['logs']}")


def _say(text: str) -> None:
    typer.echo(f"shoal: {text}", err=True)
