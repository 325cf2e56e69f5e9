"""One whole service that tests may harm, and the table of what became of its callers' requests."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from about import about
from support.stack import Stack, running_stack
from support.steady_load import Counts
from support.tiny_models import BATCHING, add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "pools: {default: {replicas: 2}}\nobserve: {log_level: debug}\n"
# A batch stays open for long enough that whatever dies has one in its hands.
SLOW = replace(BATCHING, max_batch_size=8, max_queue_delay_microseconds=100_000)
TALLY = pytest.StashKey[dict[str, Counts]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-results", type=Path, metavar="JSON", help="where to write the counts of each scenario")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section("what became of the requests")
    names = [field.name for field in fields(Counts)]
    tally = config.stash[TALLY]
    width = max(map(len, tally), default=0)
    terminalreporter.line("  ".join([" " * width, *(name.replace("_", " ") for name in names)]))
    for scenario, counts in tally.items():
        cells = (f"{value:>{len(name)}}" for name, value in asdict(counts).items())
        terminalreporter.line("  ".join([f"{scenario:<{width}}", *cells]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("--chaos-results")
    if path is not None:
        scenarios = {name: asdict(counts) for name, counts in session.config.stash[TALLY].items()}
        told = {**about(), "command": f"make chaos CHAOS={path}"}
        path.write_text(json.dumps({"about": told, "scenarios": scenarios}, indent=2) + "\n", encoding="utf-8")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> dict[str, Counts]:
    """Scenario to counts; what is put here is printed at the end."""
    return request.config.stash[TALLY]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Store, two workers, batcher and router with the model ``tiny``; workers log what they execute."""

    def add_models(store: Path) -> None:
        add_tiny_classifier(store, batching=SLOW)

    with running_stack(tmp_path_factory.mktemp("chaos") / "home", models=add_models, service=SERVICE) as running:
        yield running
