"""The Python client: upload, asynchronous calls, many at a time.

May use: batching, batching/v1, errors, modelconfig, pictures, runtime, service, v1.
"""

from shoal.client.aio import AsyncClient
from shoal.client.blocking import Client
from shoal.client.findings import Analysis, Finding, StepResult, StepTiming
from shoal.client.results import (
    AsRegion,
    Box,
    Class,
    Classification,
    Detection,
    Image,
    MaskForm,
    MaskSize,
    Outcome,
    Region,
    RegionOutcome,
    Result,
    Segmentation,
    Timing,
)
from shoal.client.retry import Retry
from shoal.pictures.region import PictureRegion
from shoal.runtime.priority import Priority

__all__ = [
    "Analysis",
    "AsRegion",
    "AsyncClient",
    "Box",
    "Class",
    "Classification",
    "Client",
    "Detection",
    "Finding",
    "Image",
    "MaskForm",
    "MaskSize",
    "Outcome",
    "PictureRegion",
    "Priority",
    "Region",
    "RegionOutcome",
    "Result",
    "Retry",
    "Segmentation",
    "StepResult",
    "StepTiming",
    "Timing",
]
