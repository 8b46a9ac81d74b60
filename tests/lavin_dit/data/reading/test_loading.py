from collections.abc import Iterator

import numpy as np
import pytest

from lavin_dit.data.reading.loading import PictureLoader
from lavin_dit.data.shards.shard_set import Member, ShardSet
from lavin_dit.errors import InputError
from tests.lavin_dit.data.mixed_shards import write_mixed_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardSet]:
    with ShardSet(write_mixed_shards(tmp_path_factory.mktemp("mixed") / "shards"), "train") as opened:
        yield opened


@pytest.mark.parametrize("num_threads", [1, 4])
def test_pictures_come_in_order_for_any_number_of_threads(shards: ShardSet, num_threads: int) -> None:
    members = [member for pair in shards.pairs for member in pair.input + pair.target][::-1]
    with PictureLoader(shards, num_threads=num_threads) as loader:
        for picture, member in zip(loader.pictures(members), members, strict=True):
            np.testing.assert_array_equal(picture, shards.image(member))


def test_a_picture_that_cannot_be_read_is_told(shards: ShardSet) -> None:
    shards.close()
    good = shards.pairs[0].input[0]
    bad = Member(good.shard, good.offset, good.size - 1, good.digest)
    with PictureLoader(shards, num_threads=2) as loader, pytest.raises(InputError, match="does not match its hash"):
        loader.pictures([shards.pairs[1].input[0], bad])


def test_a_picture_is_read_before_the_next_is_asked_for(shards: ShardSet) -> None:
    first, second = (shards.pairs[number].input[0] for number in range(2))

    def members() -> Iterator[Member]:
        yield first
        shards.close()
        yield second

    with PictureLoader(shards, num_threads=2) as loader:
        pictures = loader.pictures(members())
    for picture, member in zip(pictures, (first, second), strict=True):
        np.testing.assert_array_equal(picture, shards.image(member))
