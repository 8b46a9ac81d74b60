import pytest

from lavin_dit.errors import InputError
from pipelines.times import read_cron, read_duration, show_duration


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1d", 86400)])
def test_a_duration_has_a_unit(text: str, seconds: int) -> None:
    assert read_duration(text, "--every") == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "0h", "-1h", "1.5h", "6 h", "1h30m", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"^--every {text}: must be a whole number with a unit"):
        read_duration(text, "--every")


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0 s"), (63, "63 s"), (3600, "60 min"), (21600, "6.0 h")])
def test_a_duration_is_shown_as_a_person_says_it(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


@pytest.mark.parametrize(
    ("text", "kfps"),
    [
        ("0 2 * * *", "0 0 2 * * *"),
        (" */15  8-18/2 1,15 jan-mar MON-fri ", "0 */15 8-18/2 1,15 jan-mar MON-fri"),
        ("30 0 2 ? * 0", "30 0 2 ? * 0"),
        ("5/10 * * * *", "0 5/10 * * * *"),
    ],
)
def test_five_fields_become_kfps_six(text: str, kfps: str) -> None:
    assert read_cron(text) == kfps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must have five fields"),
        ("0 2 * *", "must have five fields"),
        ("@daily", "must have five fields"),
        ("60 2 * * *", "60 is no minute; allowed are 0 to 59,"),
        ("0 24 * * *", "24 is no hour"),
        ("0 2 0 * *", "0 is no day of the month; allowed are 1 to 31"),
        ("0 2 * 13 *", "13 is no month; allowed are 1 to 12, jan to dec"),
        ("0 2 * * 7", "7 is no day of the week; allowed are 0 to 6, sun to sat"),
        ("0 2 * * monday", "monday is no day of the week"),
        ("0 5-2 * * *", "5-2 is no hour"),
        ("*/0 * * * *", r"\*/0 is no minute"),
        ("1, * * * *", "1, is no minute"),
        ("*-5 * * * *", r"\*-5 is no minute"),
        ("-1 * * * *", "-1 is no minute"),
    ],
)
def test_a_wrong_cron_is_refused_with_the_field_and_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_cron(text)
