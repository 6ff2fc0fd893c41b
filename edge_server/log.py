# SPDX-License-Identifier: Apache-2.0
"""One line per event on standard error, as text for people or JSON for collectors."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("tepi")
_FIELDS = "tepi_fields"


def event(level: int, message: str, **fields: object) -> None:
    """One event; `fields` are its particulars."""
    LOGGER.log(level, message, extra={_FIELDS: fields})


def failure(message: str, **fields: object) -> None:
    """A defect: the event with the traceback of the exception being handled."""
    LOGGER.error(message, exc_info=True, extra={_FIELDS: fields})


def info(message: str, **fields: object) -> None:
    """Something that an operator wants to have happened."""
    event(logging.INFO, message, **fields)


def warning(message: str, **fields: object) -> None:
    """Something that an operator may want to change."""
    event(logging.WARNING, message, **fields)


def configure(form: str) -> None:
    """Send the log to standard error as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def _when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, _FIELDS, {})
    return fields


class TextFormatter(logging.Formatter):
    """`TIME LEVEL message key=value …`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_when(record), record.levelname, record.getMessage()]
        for key, value in _fields(record).items():
            text = str(value)
            plain = text.isprintable() and text and not set(text) & set(" =\"'")
            words.append(f"{key}={text if plain else json.dumps(text, ensure_ascii=False)}")
        line = " ".join(words)
        return line + "\n" + self.formatException(record.exc_info) if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _when(record), "level": record.levelname, "event": record.getMessage()}
        line |= {key: value for key, value in _fields(record).items() if key not in line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
