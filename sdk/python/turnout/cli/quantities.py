"""Numbers, sizes, times and shares in words for a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

ABSENT = "-"


def count(number: int | None) -> str:
    """308641 -> "308,641"."""
    return ABSENT if number is None else f"{number:,}"


def rate(per_s: float) -> str:
    """52301.7 -> "52,302/s"."""
    return f"{per_s:,.0f}/s" if per_s >= 10 or per_s == 0 else f"{per_s:.1f}/s"


def size(number: int | None) -> str:
    """Bytes, in decimal units: 45200000 -> "45.2 MB"."""
    if number is None:
        return ABSENT
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95 or (unit == "B" and value < 1000):
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def percent(basis_points: int) -> str:
    """9000 -> "90 %", 25 -> "0.25 %"."""
    whole, rest = divmod(basis_points, 100)
    return f"{whole}.{rest:02}".rstrip("0").rstrip(".") + " %" if rest else f"{whole} %"


def share(fraction: float) -> str:
    """0.473 -> "47.3 %", rounded down so that only the whole is 100 %."""
    tenths = int(fraction * 1000)
    return f"{tenths / 10:.1f} %"


def span(time: timedelta | None) -> str:
    """How long, in the two largest units: "72 ms", "3.2 s", "1 min 12 s", "2 h 5 min", "3 d 4 h"."""
    if time is None:
        return ABSENT
    seconds = max(time.total_seconds(), 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for large, unit, small, sub in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {unit} {rest} {sub}" if rest else f"{whole // large} {unit}"
    raise AssertionError(whole)


def moment(time: datetime | None) -> str:
    """A time to the second, in UTC."""
    return ABSENT if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(time: datetime) -> str:
    """The day of a time, in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%d")


def plural(number: int, one: str, many: str = "") -> str:
    """ "1 row", "2 rows", "1,234 rows"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
