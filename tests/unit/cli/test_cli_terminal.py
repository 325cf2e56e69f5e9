from __future__ import annotations

import json

from shoal.cli.terminal import shown, shown_json


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert shown("\x1b]0;owned\x07\x9b31m\u202egpj\r") == r"\x1b]0;owned\x07\x9b31m\u202egpj\r"


def test_letters_of_all_scripts_and_line_feeds_stay() -> None:
    text = "Zürich 猫 👩‍🔬\nsecond [link=x]"
    assert shown(text) == text


def test_json_reads_back_the_same_and_holds_no_control_character() -> None:
    value = {"label": "a\x1b\x9b\u2028\u202e 猫 \ud800"}
    text = shown_json(value)
    assert json.loads(text) == value
    assert text.isprintable()
    assert "猫" in text
