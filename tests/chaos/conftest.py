"""One whole service that tests may harm, and the tables of what became of its callers' requests."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.common.about import about
from support.neighbour import Neighbour
from support.stack import Stack, running_stack
from support.steady_load import Counts
from support.tiny_models import BATCHING, add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVICE = "pools: {default: {replicas: 2}}\nobserve: {log_level: debug}\n"
# A batch stays open for long enough that whatever dies has one in its hands.
SLOW = replace(BATCHING, max_batch_size=8, max_queue_delay_microseconds=100_000)
TALLY = pytest.StashKey[dict[str, Counts]]()
NEIGHBOURS = pytest.StashKey[dict[str, Neighbour]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-results", type=Path, metavar="JSON", help="where to write the counts of each scenario")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = {}
    config.stash[NEIGHBOURS] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    _table(terminalreporter, "what became of the requests", Counts, config.stash[TALLY])
    _table(terminalreporter, "a neighbour beside each attack, ms", Neighbour, config.stash[NEIGHBOURS])


def _table(
    reporter: pytest.TerminalReporter, title: str, kind: type[Counts | Neighbour], rows: Mapping[str, Any]
) -> None:
    if not rows:
        return  # the tests ran in other processes
    reporter.section(title)
    names = [field.name for field in fields(kind)]
    width = max(map(len, rows), default=0)
    reporter.line("  ".join([" " * width, *(name.replace("_", " ") for name in names)]))
    for scenario, row in rows.items():
        cells = (f"{value:>{len(name)}}" for name, value in asdict(row).items())
        reporter.line("  ".join([f"{scenario:<{width}}", *cells]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("--chaos-results")
    if path is not None:
        scenarios = {name: asdict(counts) for name, counts in session.config.stash[TALLY].items()}
        neighbours = {name: asdict(row) for name, row in session.config.stash[NEIGHBOURS].items()}
        told = {**about(), "command": f"make chaos CHAOS={path}"}
        path.write_text(
            json.dumps({"about": told, "scenarios": scenarios, "neighbours": neighbours}, indent=2) + "\n",
            encoding="utf-8",
        )


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> dict[str, Counts]:
    """Scenario to counts; what is put here is printed at the end."""
    return request.config.stash[TALLY]


@pytest.fixture
def neighbours(request: pytest.FixtureRequest) -> dict[str, Neighbour]:
    """Attack to what it cost; what is put here is printed at the end."""
    return request.config.stash[NEIGHBOURS]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Store, two workers, batcher and router with the model ``tiny``; workers log what they execute."""

    def add_models(store: Path) -> None:
        add_tiny_classifier(store, batching=SLOW)

    with running_stack(tmp_path_factory.mktemp("chaos") / "home", models=add_models, service=SERVICE) as running:
        yield running
