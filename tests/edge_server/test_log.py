# SPDX-License-Identifier: Apache-2.0
"""One line per event."""

import json
import logging

from edge_server.log import JsonFormatter, TextFormatter


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("tepi", logging.INFO, "", 0, message, None, None)
    made.created = 0.0
    made.tepi_fields = fields
    return made


def test_text_quotes_what_is_not_one_word() -> None:
    line = TextFormatter().format(record("model loaded", model="m", why="a b", text="x\ny", n=3))
    assert line == (
        '1970-01-01T00:00:00.000+00:00 INFO model loaded model=m why="a b" text="x\\ny" n=3'
    )


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(record("model loaded", model="m", why=ValueError("a\nb")))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "INFO",
        "event": "model loaded",
        "model": "m",
        "why": "a\nb",
    }


def test_a_traceback_stays_with_its_event() -> None:
    made = record("defect", id="1")
    try:
        raise ValueError("x")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    assert "ValueError: x" in json.loads(JsonFormatter().format(made))["traceback"]
    assert TextFormatter().format(made).splitlines()[0].endswith("defect id=1")
