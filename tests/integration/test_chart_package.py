"""The chart as an archive, and as an artifact of an OCI registry."""

from __future__ import annotations

import shutil
import tarfile
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from support.chart import CHART, SCENARIOS, helm, render
from support.oci_registry import oci_registry
from support.rendered import Rendered

if TYPE_CHECKING:
    from pathlib import Path

STRAY = [
    ".git/config",
    ".DS_Store",
    ".idea/a.xml",
    "values.yaml.orig",
    "templates/router.yaml.swp",
    "shoal-0.0.1.tgz",
    ".env",
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packaged from a folder with what editors and earlier runs leave in it."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(CHART, folder / "shoal")
    for name in STRAY:
        (folder / "shoal" / name).parent.mkdir(exist_ok=True)
        (folder / "shoal" / name).write_text("stray")
    done = helm("package", folder / "shoal", "--destination", folder)
    assert done.returncode == 0, done.stderr
    return folder / f"shoal-{version('shoal')}.tgz"


def test_it_holds_the_chart_and_nothing_stray(archive: Path) -> None:
    with tarfile.open(archive) as packed:
        there = {name.removeprefix("shoal/") for name in packed.getnames()}
    wanted = {str(file.relative_to(CHART)) for file in CHART.rglob("*") if file.is_file()}
    assert there == wanted
    assert {"README.md", "Chart.yaml", "values.yaml", "values.schema.json", "picture.jpg"} <= there


def test_it_renders_as_the_folder_does(archive: Path) -> None:
    for scenario in SCENARIOS:
        assert render(scenario, chart=archive).objects == render(scenario).objects


def test_it_is_lint_free(archive: Path) -> None:
    done = helm("lint", "--strict", archive, "--values", SCENARIOS[0])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_registry_gives_it_back(archive: Path, tmp_path: Path) -> None:
    with oci_registry() as address:
        pushed = helm("push", archive, f"oci://{address}/charts", "--plain-http")
        assert pushed.returncode == 0, pushed.stderr
        which = (f"oci://{address}/charts/shoal", "--version", version("shoal"), "--plain-http")
        pulled = helm("pull", *which, "--destination", tmp_path)
        assert pulled.returncode == 0, pulled.stderr
        assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()
        assert helm("show", "readme", *which).stdout.strip() == (CHART / "README.md").read_text().strip()
        done = helm("template", "shoal", *which, "--namespace", "vision", "--values", SCENARIOS[0])
    assert done.returncode == 0, done.stderr
    assert Rendered.parse(done.stdout).of("Deployment")
