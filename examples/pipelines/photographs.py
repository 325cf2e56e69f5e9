"""Free photographs with none to dozens of objects, out of Debian's package ``gcompris-qt-data`` (44 MB).

``python photographs.py FOLDER`` needs apt-get and dpkg-deb, no root, and writes eight WebP files of 1024 pixels. Who
made them and what they may be used for (CC0, or public domain) stands in the package's own README files:

| file | photographer | licence |
|---|---|---|
| meidumPyramid, nothing that COCO knows | Neithsabes | public domain |
| panda | Jeff Kubina | public domain |
| cow | Dohduhdah | public domain |
| horse | Seth Zeigler | CC0 |
| palaisdesPapes, people far away | Tognopop | CC0 |
| bison | Kurt Kaiser | CC0 |
| colosseum | Urse Ovidiu | public domain |
| berlinCathedral, cars and people | Gary Todd | CC0 |
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

PACKAGE: Final = "gcompris-qt-data"


class Photograph(NamedTuple):
    """Where a picture is, and which it is."""

    activity: str
    """Of GCompris, that shows it."""
    sha256: str


PHOTOGRAPHS: Final = {
    "bison": Photograph("explore_world_animals", "11f3b2c5b876ee083924ff3ffab233c3e1d161993605b67d4d2ab5a9f1d9cf25"),
    "panda": Photograph("explore_world_animals", "70ccf9a9db5008100eb6955ae25fabd4f7769427be784d627cf6315f6dfce692"),
    "cow": Photograph("explore_farm_animals", "db359136be5ef7c435a2521e7f782a7f13ab48634f8a955864b1557ca21926db"),
    "horse": Photograph("explore_farm_animals", "87879a9644b71713f52aadf22562f30cc3e6e25a36e07d602a90e0cf6ec888aa"),
    "meidumPyramid": Photograph(
        "explore_monuments", "694a4eaebc52849aacf802383bc5c755c0fff97b8342a4ef733c7a36c6e6aa53"
    ),
    "palaisdesPapes": Photograph(
        "explore_monuments", "fded6367850d2fafaf5ecad961ba51efbdc0c3d3171f7cc058d2ccfd2e6897e6"
    ),
    "colosseum": Photograph("explore_monuments", "0d38a0c2d4910f895c003825999345a86da080ff76d709bba923153cbd654945"),
    "berlinCathedral": Photograph(
        "explore_monuments", "b552994f64727ceaa04218d6a5e7a86b08cb8b550c1eeae0b010f857286d308e"
    ),
}
"""As in version 3.1 of the package."""
ACTIVITIES: Final = {each.activity for each in PHOTOGRAPHS.values()}

_HEADER: Final = struct.Struct(">4sIIII")
"""Of Qt's resource files: magic, version, and where the tree, the data and the names begin."""
_ENTRY_BYTES: Final = 22
_COMPRESSED, _FOLDER = 1 | 4, 2


def main(folder: Path) -> None:
    """Writes the pictures to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        resources = unpacked(Path(scratch)) / "usr/share/gcompris-qt/rcc"
        found = {each: pictures((resources / f"{each}.rcc").read_bytes()) for each in ACTIVITIES}
    for name, (activity, sha256) in PHOTOGRAPHS.items():
        content = found[activity].get(name, b"")
        if hashlib.sha256(content).hexdigest() != sha256:
            sys.exit(f"{PACKAGE}: {name} is missing or is another picture than in version 3.1")
        (folder / f"{name}.webp").write_bytes(content)


def unpacked(folder: Path) -> Path:
    """The package's files."""
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "--quiet", "download", PACKAGE]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (package,) = folder.glob(f"{PACKAGE}_*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder / "files")], check=True)
    return folder / "files"


def pictures(resource: bytes) -> dict[str, bytes]:
    """The WebP files of a Qt resource file by their names; Qt leaves what doesn't shrink as it is."""
    magic, version, tree, data, names = _HEADER.unpack_from(resource)
    if magic != b"qres" or version < 2:
        sys.exit(f"{PACKAGE}: a resource file of version {version} instead of 2 or 3")
    found: dict[str, bytes] = {}
    folders = [0]
    while folders:
        at = tree + folders.pop() * _ENTRY_BYTES
        _, flags = struct.unpack_from(">IH", resource, at)
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", resource, at + 6)
            folders += range(first, first + count)
            continue
        name = _name(resource, names + struct.unpack_from(">I", resource, at)[0])
        begin = data + struct.unpack_from(">I", resource, at + 10)[0]
        (length,) = struct.unpack_from(">I", resource, begin)
        if name.endswith(".webp") and not flags & _COMPRESSED:
            found[name.removesuffix(".webp")] = resource[begin + 4 : begin + 4 + length]
    return found


def _name(resource: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", resource, at)
    return resource[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
