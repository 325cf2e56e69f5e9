"""What comes from elsewhere, made fit for a terminal, which would obey some of it."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_OBEYED: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the line feed, line and paragraph separators, and what turns the writing direction."""


def shown(text: str) -> str:
    r"""``text`` with each control character written out, such as ``\x1b``; a line feed stays."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown_json(value: Any) -> str:  # any tree of JSON
    """JSON on one line, letters of all scripts as they are; control characters are escaped and read back the same."""
    text = json.dumps(value, ensure_ascii=False)
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
