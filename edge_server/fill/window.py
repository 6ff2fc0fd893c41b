# SPDX-License-Identifier: Apache-2.0
"""The times of day in which a node may fetch what nobody waits for: `22:00-06:00,12:30-13:15`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo

from edge_server.fill.errors import BadWindow

_FORM = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")
_DAY = 24 * 60
_REMEDY = "write HH:MM-HH:MM, several joined by commas, for example 22:00-06:00,12:30-13:15"


@dataclass(frozen=True, slots=True)
class Windows:
    """Spans of each day in minutes since midnight; one that ends before it begins crosses
    midnight. No span at all is always open. `zone` None is the machine's local time."""

    spans: tuple[tuple[int, int], ...] = ()
    zone: tzinfo | None = None

    def is_open(self, wall: float) -> bool:
        """Whether background fills may run at `wall` (seconds since 1970)."""
        if not self.spans:
            return True
        at = datetime.fromtimestamp(wall, self.zone)
        minute = at.hour * 60 + at.minute
        return any(
            begin <= minute < end if begin < end else minute >= begin or minute < end
            for begin, end in self.spans
        )

    def opens_in(self, wall: float) -> float:
        """Seconds until the next window begins; 0 within one. Right across changes of summer
        time, as each candidate is computed as a date and a time of day of the zone."""
        if self.is_open(wall):
            return 0.0
        today = datetime.fromtimestamp(wall, self.zone).date()
        begins = [
            datetime.combine(
                today + timedelta(days=day), time(begin // 60, begin % 60), self.zone
            ).timestamp()
            for begin, _ in self.spans
            for day in range(4)
        ]
        # A window within the hour that summer time skips does not open on that day.
        return min(begin - wall for begin in begins if begin > wall and self.is_open(begin))


ALWAYS = Windows()


def parse_windows(text: str, *, utc: bool = False) -> Windows:
    """`HH:MM-HH:MM[,…]`, in local time unless `utc`; an empty text is always. Raises BadWindow."""
    spans = tuple(_span(part, text) for part in text.split(",")) if text.strip() else ()
    return Windows(spans, UTC if utc else None)


def _span(part: str, text: str) -> tuple[int, int]:
    found = _FORM.fullmatch(part)
    if not found:
        raise BadWindow(f"{part.strip()!r} in {text!r} is not a fill window", _REMEDY)
    first_hour, first_minute, last_hour, last_minute = map(int, found.groups())
    begin, end = first_hour * 60 + first_minute, last_hour * 60 + last_minute
    if max(first_minute, last_minute) > 59 or begin >= _DAY or end > _DAY:
        raise BadWindow(f"{part.strip()!r} in {text!r} is not within a day", _REMEDY)
    if begin == end:
        raise BadWindow(
            f"{part.strip()!r} in {text!r} begins when it ends",
            "leave the windows out to fetch at any time",
        )
    return begin, end % _DAY if end == _DAY and begin > 0 else end
