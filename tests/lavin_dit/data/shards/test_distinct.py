from collections.abc import Iterator
from itertools import pairwise

import pytest

from lavin_dit.data.shards.digests import DIGEST_BYTES
from lavin_dit.data.shards.distinct import DistinctFrames, content_key, unique_members
from lavin_dit.data.shards.shard_set import ShardSet
from tests.lavin_dit.data.mixed_shards import CLIP_FRAMES, NUM_CLIPS, NUM_PHOTOS, NUM_SCENES, write_mixed_shards

NUM_PICTURES = 3 * NUM_SCENES + 2 * NUM_PHOTOS


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardSet]:
    with ShardSet(write_mixed_shards(tmp_path_factory.mktemp("mixed") / "shards"), "train") as opened:
        yield opened


def test_tasks_share_their_scenes_pictures(shards: ShardSet) -> None:
    pairs = [pair for pair in shards.pairs if len(pair.input) == 1]
    assert len(pairs) == 2 * NUM_SCENES + NUM_PHOTOS
    members = unique_members(shards)
    assert len(members) == NUM_PICTURES
    assert {member.digest for member in members} == {member.digest for pair in pairs for member in pair.input + pair.target}


def test_distinct_pictures_come_in_the_order_of_their_digests(shards: ShardSet) -> None:
    members = unique_members(shards)
    digests = [member.digest for member in members]
    assert digests == sorted(set(digests))
    assert members[::7] == tuple(members)[::7]


def test_distinct_frames_come_once_and_in_the_order_of_the_shards(shards: ShardSet) -> None:
    contents = DistinctFrames(shards.indices["image"])
    places = [(member.shard, member.offset) for (member,) in contents]
    assert all(first < second for first, second in pairwise(places))
    assert len({shard for shard, _ in places}) > 1
    assert [content_key(frames) for frames in contents] == [bytes(key).ljust(DIGEST_BYTES, b"\0") for key in contents.keys]
    assert set(contents) == {(member,) for member in unique_members(shards)}


def test_clips_are_told_apart_by_all_of_their_frames(shards: ShardSet) -> None:
    contents = DistinctFrames(shards.indices["clip"])
    assert len(contents) == 2 * NUM_CLIPS
    assert {len(frames) for frames in contents} == {CLIP_FRAMES}
    assert {content_key(frames) for frames in contents} == {
        content_key(frames) for pair in shards.pairs_of("video_invert") for frames in (pair.input, pair.target)
    }
    first, second = contents[:2]
    assert content_key(first) != content_key((*first[:-1], second[-1])) != content_key(first[::-1])
