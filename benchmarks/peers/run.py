"""Measures Shoal beside other servers.

python -m benchmarks.peers.run [--quick] [--force] [--rounds N] [--seconds S] [PEER…]

Each cell (a round, a picture size, a decoder, a way) has a result of its own in benchmarks/results/peers/; one that was
measured at the present commit with the same windows is not measured again unless it is --force'd: a run that was
interrupted goes on where it was. All of them together become benchmarks/results/peers.json.
python -m benchmarks.peers.report brings docs/how-it-compares.md up to date.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks.common.about import about, use_cores
from benchmarks.common.ceiling import Ceiling, Work
from benchmarks.common.files import SAMPLES, read_json, write_json
from benchmarks.common.options import add_names
from benchmarks.common.service import temporary_home
from benchmarks.common.shown import ShownDecoder
from benchmarks.peers import pictures
from benchmarks.peers.cells import CEILING, CEILING_AFTER, DECODERS, SHOAL, SHOAL_WITH_UPLOAD, Cell, Store, plan
from benchmarks.peers.measure import measure
from benchmarks.peers.roster import PEERS
from benchmarks.peers.search import Search
from benchmarks.peers.servers.plan import Choice, Plan
from benchmarks.peers.servers.work import Work as PeerWork
from benchmarks.peers.settings import (
    CALLERS,
    CELLS,
    CHOICES,
    LOAD,
    LONGER,
    OBJECTS,
    RESULT,
    SEED,
    Windows,
)
from benchmarks.peers.summary import summarise
from benchmarks.peers.target import Job, of_peer, of_shoal
from shoal.errors import ConfigurationError, ShoalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.pictures import Picture
    from shoal.modelconfig.model import ModelConfig
    from shoal.service.home import Home

MODEL = "efficientnet-lite0"
TRIAL_SECONDS = 1.0


def main() -> None:
    """Measures what is missing, and writes the results."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends servers and folders as Ctrl-C does
    use_cores()
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - began:6.0f} s] {text}", markup=False)

    if arguments.force:
        shutil.rmtree(CELLS, ignore_errors=True)
        CHOICES.unlink(missing_ok=True)
    for name in arguments.peers:
        say(f"environment of {PEERS[name].title}")
        PEERS[name].prepare()
    with temporary_home(MODEL) as (home, model):
        run = Run(_job(home, model, say), arguments.windows, arguments.peers, say, search=not arguments.quick)
        run.measure()
        write_json(RESULT, run.result())
    say(f"written: {RESULT}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_names(parser, "peer", PEERS)
    parser.add_argument("--rounds", type=int, help="3 or more tell noise from news (default 3)")
    parser.add_argument("--seconds", type=float, help="of each window, in place of 4")
    parser.add_argument("--quick", action="store_true", help="one round, short windows, no search for settings")
    parser.add_argument("--force", action="store_true", help="measure all again, the search for settings included")
    arguments = parser.parse_args()
    windows = Windows.quick() if arguments.quick else Windows()
    if arguments.seconds:
        windows = replace(windows, saturated_seconds=arguments.seconds, half_seconds=arguments.seconds)
    arguments.windows = replace(windows, rounds=arguments.rounds or windows.rounds)
    return arguments


def _job(home: Home, model: ModelConfig, say: Any) -> Job:  # a function
    say("making the pictures")
    made = {size: pictures.make(size, SAMPLES) for size in pictures.Size}
    precision = "f32"  # as Shoal has it unless told otherwise
    references = {
        (size, decoder): _reference(home, model, precision, decoder, of)
        for size, of in made.items()
        for decoder in DECODERS
    }
    return Job(home, model, precision, made, references)


def _reference(home: Home, model: ModelConfig, precision: str, decoder: str, of: Sequence[Picture]) -> list[int]:
    """Each picture's most probable class, found in this process; it must be one that is right for the picture."""
    choice = Choice("reference", threads=1, batch_size=len(of))
    work = PeerWork(Plan(model, decoder, precision, str(home.cache / "openvino"), choice, 0, ""))
    found = [answer["classes"][0][0] for answer in work.classify([picture.data for picture in of])]
    for number, (index, picture) in enumerate(zip(found, of, strict=True)):
        if index not in picture.classes:
            raise ConfigurationError(f"picture {number}, {decoder} decoder: class {index}; expected {picture.classes}")
    return found


class Run:
    """One run: its cells, one after the other."""

    def __init__(self, job: Job, windows: Windows, peers: Sequence[str], say: Any, *, search: bool) -> None:
        self._job = job
        self._windows = windows
        self._peers = peers
        self._say = say
        self._about = about()
        self._load_average = round(os.getloadavg()[0], 2)
        self._search = Search(job, self._about["machine"], say)
        self._choose = self._search.best if search else self._search.known
        self._store = Store({"commit": self._about["commit"], "windows": windows.told()})
        self._cells = list(plan(windows.rounds, peers))

    def measure(self) -> None:
        """What is missing; each result is kept at once."""
        for cell in self._cells:
            if self._store.read(cell) is None:
                self._say(str(cell))
                result = self._measure(cell)
                self._store.write(cell, result)
                self._say(
                    f"    {result['saturated']['images_per_s']:.1f} images/s, errors {result['saturated']['errors']}"
                )

    def result(self) -> dict[str, Any]:
        """Everything together."""
        results = {cell: result for cell in self._cells if (result := self._store.read(cell)) is not None}
        return {
            **self._about,
            "load_average": self._load_average,
            "peers": {
                name: {"title": PEERS[name].title, "versions": PEERS[name].versions()} for name in self._peers
            },
            "settings": {
                **self._windows.told(),
                "model": MODEL,
                "precision": self._job.precision,
                "load": LOAD,
                "seed": SEED,
                "callers": {str(size): count for size, count in CALLERS.items()},
                "objects": {str(size): count for size, count in OBJECTS.items()},
                "pictures": {str(size): pictures.told(of) for size, of in self._job.pictures.items()},
            },
            "choices": read_json(CHOICES),
            "rows": summarise(results),
        }  # fmt: skip

    def _measure(self, cell: Cell) -> dict[str, Any]:
        if cell.way in (CEILING, CEILING_AFTER):
            return self._ceiling(cell)
        references = self._job.references[cell.size, cell.decoder]
        if cell.way in (SHOAL, SHOAL_WITH_UPLOAD):
            target = of_shoal(self._job, cell.size, upload=cell.way == SHOAL_WITH_UPLOAD)
        else:
            peer = PEERS[cell.way]
            target = of_peer(peer, self._choose(peer, cell.size, cell.decoder), self._job, cell.size, cell.decoder)
        with target as found:
            return asyncio.run(measure(found, cell.size, references, self._windows))

    def _ceiling(self, cell: Cell) -> dict[str, Any]:
        data = [picture.data for picture in self._job.pictures[cell.size]]
        work = Work(self._job.model, data, self._job.home.cache / "openvino", len(os.sched_getaffinity(0)))
        if cell.decoder == "shown":
            work = replace(work, make_decoder=ShownDecoder)
        first = self._store.read(replace(cell, round=0, way=CEILING))
        window = self._windows.saturated(cell.size)
        with Ceiling(work) as ceiling:
            trials = None
            if first is None:
                trials = ceiling.choose(TRIAL_SECONDS * LONGER[cell.size])
            else:
                ceiling.take(first["choice"])
            found = ceiling.measure(window.warm_up_seconds, window.seconds)
        return {
            "choice": str(ceiling.pattern),
            "trials": trials,
            "saturated": {
                "images": found.images,
                "images_per_s": round(found.images_per_s, 3),
                "cpu_ms_per_image": {"server": round(found.cpu_ms(*found.cpu.components), 4)},
                "other_cores": round(found.cpu.other_cores, 3),
                "errors": {},
            },
            "half": None,
        }


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")
    except ShoalError as error:
        sys.exit(f"{error}\nthe same command goes on from here")
