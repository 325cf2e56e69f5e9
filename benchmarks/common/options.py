"""Options of several command lines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.files import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Collection


def add_names(parser: argparse.ArgumentParser, what: str, names: Collection[str]) -> None:
    """As many of ``names`` as one likes, as the attribute ``{what}s``; none given: all of them."""

    def known(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"no {what} {text}: expected some of {', '.join(names)}")
        return text

    told = f"of {', '.join(names)}; all"
    parser.add_argument(f"{what}s", nargs="*", metavar=what.upper(), type=known, default=list(names), help=told)


def add_images(parser: argparse.ArgumentParser) -> None:
    """``--images``."""
    parser.add_argument("--images", type=Path, default=SAMPLES, help="a folder of JPEGs (default samples)")


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--model``."""
    parser.add_argument("--model", default="efficientnet-lite0", help="default efficientnet-lite0")
