"""The documentation builds as a site: every link and anchor leads somewhere, every chapter is in the navigation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from site_files import ROOT, shown

if TYPE_CHECKING:
    from pathlib import Path

_LOADED = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\s\">]+)|<link[^>]*\shref=\"?([^\s\">]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with what is a warning as an error (``strict`` and ``validation`` in mkdocs.yml)."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_links_anchors_and_navigation_are_right_and_every_page_is_there(site: Path) -> None:
    pages = [path for path in shown() if path.endswith(".md")]
    assert "README.md" in pages
    assert "docs/reference/kubernetes.md" in pages
    html = [re.sub(r"(^|/)README$", r"\1index", page.removesuffix(".md")) for page in pages]
    assert [page for page in html if not (site / f"{page}.html").exists()] == []


def test_nothing_comes_from_other_hosts(site: Path) -> None:
    loaded = {
        address
        for page in site.rglob("*.html")
        for found in _LOADED.findall(page.read_text(encoding="utf-8"))
        for address in found
        if address
    }
    assert any(address.endswith(".js") for address in loaded)
    assert {address for address in loaded if re.match(r"https?:|//", address)} == set()
