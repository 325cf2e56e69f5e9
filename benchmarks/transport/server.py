"""The server: a real Triton, with the models of a repository that is made for it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.python_models import add_model
from benchmarks.transport.ways import IN_FLIGHT, NETWORK, TAKE
from shoal.service.home import Home

HERE = Path(__file__).parent
MODELS = (TAKE, NETWORK)
EFFICIENTNET = "efficientnet-lite0"


@dataclass(frozen=True, slots=True)
class Served:
    """What the models are to do."""

    network: str
    """``efficientnet-lite0``, through OpenVINO; or a name of torchvision's, on a GPU."""
    decoder: str
    threads: int
    lanes: Path
    """The folder of lane.py, for a GPU."""

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs there."""
        return self.network != EFFICIENTNET


def make_repository(root: Path, served: Served) -> Path:
    """A model repository with ``take`` and ``network``."""
    network = {"network": served.network} if served.on_gpu else {"network": "openvino", "file": str(_weights(root))}
    shared = {
        "jobs": str(max(IN_FLIGHT)),
        "threads": str(served.threads),
        "decoder": served.decoder,
        "path": ":".join(str(Path(entry).absolute()) for entry in sys.path if Path(entry).is_dir()),
    }
    files = [HERE / "model.py", HERE / "decoding.py", *([served.lanes / "lane.py"] if served.on_gpu else [])]
    repository = root / "repository"
    for name, own in zip(MODELS, ({"network": "take"}, network), strict=True):
        add_model(repository, name, HERE / "config.pbtxt", files, shared | own)
    return repository


def _weights(root: Path) -> Path:
    """EfficientNet-Lite0 as Shoal's model store has it."""
    from shoal.modelstore.making import build  # needs onnx, which a GPU machine may lack
    from shoal.modelstore.making.published import PUBLISHED

    return build.add_model(root / "store", *PUBLISHED[EFFICIENTNET](Home.default().cache)).path
