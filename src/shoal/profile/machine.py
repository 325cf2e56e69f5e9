"""Where a profile is made."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from shoal.profile.records import Machine
from shoal.runtime import gpus
from shoal.runtime.threads import usable_cores


def this_machine() -> Machine:
    """Nothing of it tells whose machine it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(cpu=_cpu(), cores=usable_cores(), memory_gib=round(memory / 2**30, 1), gpus=gpus.names())


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
