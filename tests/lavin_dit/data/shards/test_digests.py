from hypothesis import given
from hypothesis import strategies as st

from lavin_dit.data.shards.digests import DIGEST_BYTES, content_digest


def test_digests_are_those_that_the_algorithms_authors_publish() -> None:
    """So that sets outlive releases of the library, and move between machines."""
    assert content_digest(b"").hex() == "99aa06d3014798d86001c324468d497f"
    assert len(content_digest(b"a picture")) == DIGEST_BYTES


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_a_flipped_bit_and_a_lost_end_change_the_digest(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content)
    damaged[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    shortened = content[: data.draw(st.integers(0, len(content) - 1))]
    assert len({content_digest(content), content_digest(bytes(damaged)), content_digest(shortened)}) == 3 - (shortened == damaged)
