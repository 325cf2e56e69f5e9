"""The ``shoal`` command: one module a command group, each imported only when it is called.

So ``shoal --help`` is quick, and the base install, which is the client alone, lacks nothing that ``shoal classify``
needs. Exit codes: 0 done, 1 the work failed, 2 the command line or a file is wrong, 130 interrupted.

May use: arrivals, client, client/load, client/report, errors, explain, local, modelconfig, modelstore,
modelstore/making, pictures, plan, profile, runtime, service, simulate, triton, validation.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import typer

from shoal.cli.lazy import Command, LazyGroup
from shoal.cli.terminal import shown
from shoal.errors import ConfigurationError, ShoalError

if TYPE_CHECKING:
    from collections.abc import Sequence


COMMANDS = {
    "up": Command("shoal.cli.up:up", "local", "Run the whole service on this machine."),
    "status": Command("shoal.cli.status:status", "local", "Say what is running here, and where."),
    "health": Command("shoal.cli.health:health", "router", "Ask a service, here or elsewhere, whether it serves."),
    "down": Command("shoal.cli.status:down", "local", "Drain the service and stop it."),
    "classify": Command("shoal.cli.classify:classify", "", "Label pictures."),
    "detect": Command("shoal.cli.classify:detect", "", "Find boxes in pictures."),
    "analyze": Command("shoal.cli.analyze:analyze", "", "Find boxes in pictures and look closer at each: a pipeline."),
    "profile": Command("shoal.cli.profile:profile", "local", "Measure a model at each setting, and name the best."),
    "segment": Command("shoal.cli.segment:segment", "", "Tell the class of each pixel of pictures."),
    "explain": Command(
        "shoal.cli.explain:explain", "", "Say what became of a recent request, and where its time went."
    ),
    "simulate": Command(
        "shoal.cli.simulate:simulate", "local", "Calculate how a service would do, with the real batching policy."
    ),
    "plan": Command("shoal.cli.plan:plan", "local", "Say how many GPUs models need, and which of them share GPUs."),
    "triton": Command("shoal.cli.triton:app", "local", "Bring a Triton to this machine, without Docker."),
    "model": Command("shoal.cli.model:app", "models", "Add, list, check, push and pull models."),
    "keys": Command("shoal.cli.keys:app", "router", "Create, list and revoke API keys."),
    "render": Command("shoal.cli.render:app", "", "Write configuration: Envoy's, Prometheus', Grafana's."),
    "bench": Command("shoal.cli.bench:bench", "", "Load a running service and measure it."),
    "serve": Command("shoal.cli.serve:app", "local", "Run one part of the service: what containers run."),
}
_OWN_TABLES = ("render", "serve")
"""Groups whose modules list commands likewise."""


class RootGroup(LazyGroup):
    """The commands of ``shoal``."""

    table = COMMANDS


app = typer.Typer(cls=RootGroup, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed_version  # 30 ms that no other command needs

        typer.echo(f"shoal {installed_version('shoal')}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Image inference that batches references before the load balancer and decodes each picture beside the model."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line's entry point; ``arguments`` are the process's own by default."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(words)
    except ShoalError as error:
        typer.echo(shown(f"shoal: {error}"), err=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except OSError as error:  # a folder that can't be written, a full disk
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        typer.echo(shown(f"shoal: {reason}"), err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if not (hint := _missing_extra(words, error)):
            raise
        typer.echo(f"shoal: {hint}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _missing_extra(words: list[str], error: ModuleNotFoundError) -> str:
    """What to tell a user whose install is too small; empty where the fault is another."""
    extra = _extra(words)
    if not extra or not error.name or error.name.partition(".")[0] == "shoal":
        return ""
    return f"this command needs {error.name!r}, which isn't installed: pip install 'shoal[{extra}]'"


def _extra(words: list[str]) -> str:
    """The extra that the called command needs; what is in a group may need less than the whole, or something else."""
    group, name, *_ = [*(word for word in words if not word.startswith("-")), "", ""]
    if group in _OWN_TABLES and (called := import_module(f"{__name__}.{group}").COMMANDS.get(name)):
        return str(called.extra)
    return COMMANDS[group].extra if group in COMMANDS else ""
