import io
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavin_dit.data.raw.windows import open_window

CONTENT = bytes(range(200))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 200), size=st.integers(0, 100), steps=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), max_size=4))
def test_a_window_is_a_file_of_its_own(tmp_path: Path, start: int, size: int, steps: list[tuple[int, int]]) -> None:
    size = min(size, len(CONTENT) - start)
    (tmp_path / "whole").write_bytes(CONTENT)
    expected = io.BytesIO(CONTENT[start : start + size])
    with open_window(tmp_path / "whole", start, size) as window:
        assert window.seek(0, io.SEEK_END) == size
        for place, count in steps:
            assert window.seek(place) == expected.seek(place)
            assert window.read(count) == expected.read(count)
            assert window.tell() == expected.tell()


def test_closing_a_window_closes_its_file(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(CONTENT)
    window = open_window(tmp_path / "whole", 10, 5)
    assert window.read() == CONTENT[10:15]
    window.close()
    assert window.closed
