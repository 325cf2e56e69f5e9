"""Gathers the site's pages for MkDocs: README, docs and what they link to, each at its place in the repository.

A hook of mkdocs.yml (https://www.mkdocs.org/user-guide/configuration/#hooks). MkDocs looks into one folder below the
configuration alone; a link from docs/ to ../CONTRIBUTING.md would lead out of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).resolve().parent.parent
SHOWN = (
    "*.md",
    "LICENSE",
    "docs/**/*",
    "deploy/helm/shoal/README.md",
    "deploy/scenarios/**/*",
    "examples/**/*",
    "benchmarks/README.md",
    "benchmarks/results/*.json",
    "samples/*",
)


def shown() -> Iterator[str]:
    """The paths of the site's files below the repository's root, with slashes."""
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    """The theme's own files and ours, in place of what MkDocs found in docs/."""
    themes = [file for file in files if file.src_dir != config.docs_dir]
    ours = [File.generated(config, path, abs_src_path=str(ROOT / path)) for path in shown()]
    return Files([*themes, *ours])
