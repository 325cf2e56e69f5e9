"""The Python client: upload, asynchronous calls, many at a time.

May use: batching, batching/v1, errors, modelconfig, pictures, runtime, service, v1.
"""

from shoal.client.aio import AsyncClient
from shoal.client.blocking import Client
from shoal.client.findings import Analysis, Finding, StepResult, StepTiming
from shoal.client.results import (
    Box,
    Class,
    Classification,
    Detection,
    Image,
    MaskForm,
    MaskSize,
    Outcome,
    Region,
    Result,
    Segmentation,
    Timing,
)
from shoal.client.retry import Retry
from shoal.runtime.priority import Priority

__all__ = [
    "Analysis",
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
    "Priority",
    "Region",
    "Result",
    "Retry",
    "Segmentation",
    "StepResult",
    "StepTiming",
    "Timing",
]
