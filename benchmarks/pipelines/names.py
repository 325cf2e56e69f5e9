"""What the ways are called, in results and in the chapter."""

from __future__ import annotations

from typing import Final

UPLOADED, STORED, CLIENT, TRITON = "pipeline, with upload", "pipeline, stored pictures", "client", "triton"
WAYS: Final = (UPLOADED, STORED, CLIENT, TRITON)
PIPELINES: Final = (UPLOADED, STORED)
OTHERS: Final = (CLIENT, TRITON)
