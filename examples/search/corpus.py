# SPDX-License-Identifier: Apache-2.0
"""What is searched: entries of the Jargon File, and questions whose answer among them is known."""

import json
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Passage:
    """The first paragraph of an entry."""

    title: str
    text: str

    @property
    def whole(self) -> str:
        """What is embedded."""
        return f"{self.title}: {self.text}"


@dataclass(frozen=True)
class Question:
    """`passage` is the title of the entry that answers it."""

    question: str
    passage: str


def passages() -> list[Passage]:
    """In alphabetical order; titles are unique."""
    return [Passage(**json.loads(line)) for line in _lines("passages.jsonl")]


def questions() -> list[Question]:
    """Worded so that few of them share words with their passage."""
    return [Question(**json.loads(line)) for line in _lines("questions.jsonl")]


def _lines(name: str) -> list[str]:
    return (HERE / name).read_text().splitlines()
