"""README's first screen says what Shoal is, shows it, and is short."""

from __future__ import annotations

import re

from site_files import ROOT

FIRST_SCREEN = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]


def words(text: str) -> int:
    return len(re.findall(r"[\w'%]+", text))


def test_one_sentence_then_the_picture() -> None:
    sentence, picture = FIRST_SCREEN.split("\n\n")[1:3]
    assert 8 < words(sentence) <= 20
    assert re.fullmatch(r"!\[[^\]]+\]\(docs/images/overview\.svg\)", picture)


def test_four_short_bullets() -> None:
    bullets = re.findall(r"^- (.+)$", FIRST_SCREEN, re.MULTILINE)
    assert [words(bullet) <= 12 for bullet in bullets] == [True] * 4


def test_a_call_in_six_lines_and_four_links() -> None:
    (python,) = re.findall(r"```python\n(.*?)```", FIRST_SCREEN, re.DOTALL)
    assert len([line for line in python.splitlines() if line]) == 6
    assert len(FIRST_SCREEN.rstrip().split("\n\n")[-1].split(" ·")) == 4
