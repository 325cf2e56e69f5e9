"""Python's collector of cyclic garbage, for a server whose requests leave hardly any.

As it is by default it looks at the youngest objects for each 700 that were made and not freed: tens of times in every
batch of pictures that is on its way, each time for nothing.
"""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 20_000
"""Objects that were made and not freed, before it looks; some MB at most where all of them were garbage."""


def settle() -> None:
    """Called once a server has what it keeps: that is never looked at again, and what comes and goes less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
