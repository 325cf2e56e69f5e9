"""Options that several parts have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

VerifyIdentity: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--verify-identity",
        help="Look keys up in the keys file, which is the router's own, whatever is said of the caller.",
    ),
]
