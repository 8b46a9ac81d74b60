"""Times as people type them: durations, and cron's five fields, of which KFP wants six."""

import re

from lavin_dit.errors import InputError

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 6, WEEKDAYS),
)
PART = re.compile(r"(?P<first>\*|\?|\w+)(-(?P<last>\w+))?(/(?P<step>\d+))?")


def read_duration(text: str, option: str) -> int:
    """Seconds in "90s", "30m", "6h" or "1d".

    Raises: InputError naming the option, the text and what is allowed.
    """
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found or not int(found[1]):
        raise InputError(f"{option} {text}: must be a whole number with a unit, such as 90s, 30m, 6h or 1d")
    return int(found[1]) * UNITS_S[found[2]]


def show_duration(seconds: float) -> str:
    """As a person would say it: "63 s", "12 min", "3.5 h"."""
    if seconds < 2 * UNITS_S["m"]:
        return f"{seconds:.0f} s"
    if seconds < 2 * UNITS_S["h"]:
        return f"{seconds / UNITS_S['m']:.0f} min"
    return f"{seconds / UNITS_S['h']:.1f} h"


def read_cron(text: str) -> str:
    """Cron's five fields as the six of KFP, which begin with seconds; six are taken as they are.

    KFP takes five as well, but for seconds to months: a schedule of every day at two would be one of every hour.

    Raises: InputError naming the field and what is allowed.
    """
    fields = text.split()
    if len(fields) not in (5, 6):
        raise InputError(f'--cron "{text}": must have five fields, such as "0 2 * * *" for every day at two, or six with seconds first')
    fields = fields if len(fields) == 6 else ["0", *fields]
    for field, (name, lowest, highest, words) in zip(fields, FIELDS, strict=True):
        if not all(_fits(part, lowest, highest, words) for part in field.split(",")):
            named = f", {words[0]} to {words[-1]}" if words else ""
            raise InputError(f'--cron "{text}": {field} is no {name}; allowed are {lowest} to {highest}{named}, *, lists, ranges and steps')
    return " ".join(fields)


def _fits(part: str, lowest: int, highest: int, words: tuple[str, ...]) -> bool:
    found = PART.fullmatch(part)
    if not found or found["step"] == "0" or (found["last"] and found["first"] in "*?"):
        return False
    ends = [end for end in (found["first"], found["last"]) if end not in (None, "*", "?")]
    numbers = [_number(end, lowest, words) for end in ends]
    return all(lowest <= number <= highest for number in numbers) and numbers == sorted(numbers)


def _number(text: str, lowest: int, words: tuple[str, ...]) -> int:
    """Of a number or a name; one that fits nowhere for anything else."""
    if text.lower() in words:
        return lowest + words.index(text.lower())
    return int(text) if text.isdecimal() else -1
