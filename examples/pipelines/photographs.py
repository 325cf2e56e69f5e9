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

import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PACKAGE: Final = "gcompris-qt-data"
PICTURES: Final = {
    "explore_world_animals": ("bison", "panda"),
    "explore_farm_animals": ("cow", "horse"),
    "explore_monuments": ("meidumPyramid", "palaisdesPapes", "colosseum", "berlinCathedral"),
}
"""By the activity that shows them."""

_HEADER: Final = struct.Struct(">4sIIII")
"""Of Qt's resource files: magic, version, and where the tree, the data and the names begin."""
_ENTRY_BYTES: Final = 22
_COMPRESSED, _FOLDER = 1 | 4, 2


def main(folder: Path) -> None:
    """Writes the pictures to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        resources = unpacked(Path(scratch)) / "usr/share/gcompris-qt/rcc"
        for activity, names in PICTURES.items():
            found = pictures((resources / f"{activity}.rcc").read_bytes())
            for name in names:
                (folder / f"{name}.webp").write_bytes(found[name])


def unpacked(folder: Path) -> Path:
    """The package's files."""
    subprocess.run(["apt-get", "download", "--quiet", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
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
