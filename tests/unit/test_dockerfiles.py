"""The images' recipes: hadolint's rules, and what a platform team asks for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.cli.serve import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
SHOAL = ROOT / "deploy" / "docker" / "shoal.Dockerfile"
_TAG = re.compile(r"[\w./-]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?")


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each with its keyword, continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(keyword, rest) for line in joined.splitlines() if line for keyword, rest in [line.split(maxsplit=1)]]


def bases(file: Path) -> list[str]:
    """What stages begin with, by their arguments' defaults."""
    found = instructions(file)
    defaults = dict(rest.split("=", 1) for keyword, rest in found if keyword == "ARG")
    words = [rest.split()[0] for keyword, rest in found if keyword == "FROM"]
    return [re.sub(r"\$\{(\w+)\}", lambda name: defaults[name[1]], word) for word in words]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hadolint_finds_nothing(file: Path) -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, "--no-color", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bases_are_pinned_by_a_tag_with_a_version(file: Path) -> None:
    assert bases(file)
    assert all(_TAG.fullmatch(base) for base in bases(file)), bases(file)


def test_what_is_fetched_for_our_own_image_is_pinned_by_its_digest() -> None:
    assert len(set(bases(SHOAL))) == 1, "both stages have the same Python"
    assert all("@sha256:" in base for base in bases(SHOAL))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_they_run_as_the_user_of_the_pods(file: Path) -> None:
    assert [rest for keyword, rest in instructions(file) if keyword == "USER"] == ["65532:65532"]
    assert instructions(file)[-1][0] in {"USER", "ENTRYPOINT", "CMD"}, "nothing is made as another user after that"


def test_what_is_installed_has_the_tested_versions_and_no_build_tools() -> None:
    stages = [index for index, (keyword, _) in enumerate(instructions(SHOAL)) if keyword == "FROM"]
    build, final = instructions(SHOAL)[: stages[-1]], instructions(SHOAL)[stages[-1] :]
    assert any("--constraint constraints.txt" in rest for _, rest in build)
    assert not any("apt-get" in rest or "pip install" in rest for _, rest in final)
    assert any("pip uninstall" in rest for _, rest in final)
    assert ("COPY", "--from=build /opt/shoal /opt/shoal") in final


def test_the_extras_are_those_of_what_runs_in_a_cluster() -> None:
    (extras,) = re.findall(r"'\.\[(.+)\]'", SHOAL.read_text())
    in_pods = {"router-config", "batcher", "worker", "model-sync", "image-retention"}
    assert {COMMANDS[name].extra for name in in_pods} - {""} <= set(extras.split(","))


def test_only_what_is_built_from_goes_to_the_builder() -> None:
    copied = {path for keyword, rest in instructions(SHOAL) if keyword == "COPY" for path in rest.split()[:-1]}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {path for path in copied if not path.startswith(("--from", "/"))} == sent
