from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavin_dit.data.raw.matching import FrameFolder, natural_order
from lavin_dit.data.raw.pairs import FilePair, RawData, find_raw, read_clip_pair
from lavin_dit.data.tasks import TASKS, ClipPair
from lavin_dit.errors import InputError
from tests.lavin_dit.data.raw.bad_files import frames, saved, tar_of, video

NUM_FRAMES = 5
CLIP = frames(NUM_FRAMES + 2)
CLIP_TASK = next(name for name, task in TASKS.items() if task.medium == "clip")


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def png(frame: np.ndarray) -> bytes:
    return saved(Image.fromarray(frame))


def put_frames(folder: Path, clip: list[np.ndarray] = CLIP, *, name: str = "{:03d}.png") -> Path:
    for index, frame in enumerate(clip):
        put(folder / name.format(index), png(frame))
    return folder


def put_pair(folder: Path, name: str = "a") -> None:
    put_frames(folder / f"{name}_input")
    put_frames(folder / f"{name}_target", CLIP[::-1])


def find(root: Path, **options: object) -> RawData:
    return find_raw(root, seed=0, test_fraction=0.0, **options)


def read(pair: FilePair) -> ClipPair:
    return read_clip_pair(pair, resolution=16, max_megapixels=0.01, num_frames=NUM_FRAMES)


def refusal(root: Path) -> str:
    """Of the finding, or of the reading of the only pair."""
    with pytest.raises(InputError) as caught:
        read(find(root).pairs[0])
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(root), "RAW")


def brightness(clip: np.ndarray) -> list[int]:
    assert clip.shape == (NUM_FRAMES, 16, 16, 3)
    assert clip.dtype == np.uint8
    return [int(frame.mean().round()) for frame in clip]


def test_folders_of_frames_are_clips_in_the_natural_order_of_their_names(tmp_path: Path) -> None:
    clip = frames(12)
    for role in ("input", "target"):
        put_frames(tmp_path / "mine" / "train" / f"a_{role}", clip if role == "input" else clip[::-1], name="frame {}.png")
    (pair,) = find(tmp_path).pairs
    assert pair.medium == "clip"
    assert isinstance(pair.input, FrameFolder)
    assert [frame.name.name for frame in pair.input.frames[8:]] == ["frame 8.png", "frame 9.png", "frame 10.png", "frame 11.png"]
    shown = read(pair)
    assert brightness(shown.input) == [0, 20, 40, 60, 80]
    assert brightness(shown.target) == [220, 200, 180, 160, 140]


def test_videos_folders_and_tars_of_one_clip_are_one_clip(tmp_path: Path) -> None:
    clips = {"input": CLIP, "target": CLIP[::-1]}
    pngs = {f"a_{role}/{index}.png": png(frame) for role, clip in clips.items() for index, frame in enumerate(clip)}
    put_pair(tmp_path / "folders" / "mine" / "train")
    put(tmp_path / "tar" / "mine" / "train" / "x.tar", tar_of(pngs))
    put(tmp_path / "videos in a tar" / "mine" / "train" / "x.tar", tar_of({f"a_{role}.mkv": video(clips[role]) for role in clips}))
    for suffix in (".mkv", ".mov"):
        for role, clip in clips.items():
            put(tmp_path / suffix / "mine" / "train" / f"a_{role}{suffix}", video(clip, suffix))
    put_frames(tmp_path / "mixed" / "mine" / "train" / "a_input")
    put(tmp_path / "mixed" / "mine" / "train" / "a_target.mkv", video(CLIP[::-1]))
    found = [find(root).pairs for root in sorted(tmp_path.iterdir())]
    assert [[pair.medium for pair in pairs] for pairs in found] == [["clip"]] * 6
    assert len({pairs[0].scene for pairs in found}) == 1
    for pairs in found:
        shown = read(pairs[0])
        assert brightness(shown.input) == [0, 20, 40, 60, 80]
        assert brightness(shown.target) == [120, 100, 80, 60, 40]


@pytest.mark.parametrize("gone", [1, 3, 5])
def test_a_frame_that_is_missing_between_others_is_named(tmp_path: Path, gone: int) -> None:
    put_pair(tmp_path / "mine" / "train")
    (tmp_path / "mine" / "train" / "a_input" / f"{gone:03d}.png").unlink()
    assert refusal(tmp_path) == f"RAW/mine/train/a_input: lacks the frame {gone:03d} between {gone - 1:03d} and {gone + 1:03d}"


def test_a_pair_that_lacks_a_frame_is_left_out_once_and_its_other_side_is_not_called_alone(tmp_path: Path) -> None:
    put_pair(tmp_path / "mine" / "train")
    (tmp_path / "mine" / "train" / "a_target" / "003.png").unlink()
    found = find_raw(tmp_path, seed=0, test_fraction=0.0, on_bad="skip")
    assert not found.pairs
    assert [skipped.reason for skipped in found.skipped] == [f"{tmp_path}/mine/train/a_target: lacks the frame 003 between 002 and 004"]


def test_a_frame_that_is_missing_at_the_end_shows_in_the_number_of_frames(tmp_path: Path) -> None:
    put_pair(tmp_path / "mine" / "train")
    (tmp_path / "mine" / "train" / "a_target" / "006.png").unlink()
    assert refusal(tmp_path) == "RAW/mine/train/a_target: has 6 frames, but its input has 7: both must have the same number"


def test_names_without_numbers_have_no_gaps(tmp_path: Path) -> None:
    put_pair(tmp_path / "mine" / "train")
    for role in ("input", "target"):
        (tmp_path / "mine" / "train" / f"a_{role}" / "003.png").rename(tmp_path / "mine" / "train" / f"a_{role}" / "last.png")
    assert brightness(read(find(tmp_path).pairs[0]).input) == [0, 20, 40, 80, 100]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_input/02.png", "RAW/mine/train/a_input: holds the frames 002 and 02, which are one number"),
        ("a_input/002.bmp", "RAW/mine/train/a_input/002.png: repeats the frame 002 of RAW/mine/train/a_input/002.bmp"),
        ("a_input/notes.txt", "RAW/mine/train/a_input/notes.txt: is not an image that can be read here"),
        ("a_input/more/000.png", "RAW/mine/train/a_input/more/000.png: lies too deep: a clip's folder holds its frames and nothing else"),
        ("a_input.mp4", "RAW/mine/train/a_input: repeats the name a_input of RAW/mine/train/a_input.mp4"),
        ("b_input/000.png", "RAW/mine/train/b_input: has no target: b_target is missing"),
        ("b_input.mkv", "RAW/mine/train/b_input.mkv: has no target: b_target.<ext> is missing"),
        ("_input/000.png", "RAW/mine/train/_input: must be named <name>_input or <name>_target"),
    ],
)
def test_what_does_not_belong_to_a_clip_is_refused_by_name(tmp_path: Path, name: str, expected: str) -> None:
    put_pair(tmp_path / "mine" / "train")
    put(tmp_path / "mine" / "train" / name, png(CLIP[0]))
    assert refusal(tmp_path).startswith(expected)


def test_clips_that_are_too_short_or_of_another_size_are_refused(tmp_path: Path) -> None:
    sides = {
        "short": (CLIP[:4], CLIP[:4], "a_input.mkv: has 4 frames: prepare.clip_frames takes 5 of each clip"),
        "sizes": (CLIP, frames(7, side=32), "a_target.mkv: is 32x32, but its input is 24x24: both must have one size"),
        "large": (frames(7, side=128), CLIP, "a_input.mkv: is 128x128 (0.0 megapixels): prepare.max_megapixels allows 0.01"),
    }
    for folder, (first, second, expected) in sides.items():
        for role, clip in (("input", first), ("target", second)):
            put(tmp_path / folder / "mine" / "train" / f"a_{role}.mkv", video(clip))
        assert refusal(tmp_path / folder) == f"RAW/mine/train/{expected}"


def test_videos_that_declare_different_lengths_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "mine" / "train" / "a_input.mov", video(CLIP, ".mov"))
    put(tmp_path / "mine" / "train" / "a_target.mov", video(CLIP[:6], ".mov"))
    assert refusal(tmp_path) == "RAW/mine/train/a_target.mov: has 6 frames, but its input has 7: both must have the same number"


def test_a_frame_of_another_size_or_a_damaged_one_is_named(tmp_path: Path) -> None:
    put_pair(tmp_path / "mine" / "train")
    path = tmp_path / "mine" / "train" / "a_input" / "002.png"
    path.write_bytes(saved(Image.new("RGB", (32, 24))))
    expected = "RAW/mine/train/a_input: its frame 3 is 32x24, but its first is 24x24: all frames must have one size"
    assert refusal(tmp_path) == expected
    path.write_bytes(b"")
    assert refusal(tmp_path) == "RAW/mine/train/a_input/002.png: is empty (0 bytes)"


def test_a_known_task_has_its_own_medium_and_one_of_the_users_has_one(tmp_path: Path) -> None:
    put_pair(tmp_path / "one" / "depth" / "train")
    assert refusal(tmp_path / "one") == "RAW/depth/train/a_input: is a clip, but depth is a task of pictures"
    for role in ("input", "target"):
        put(tmp_path / "two" / CLIP_TASK / "train" / f"p_{role}.png", png(CLIP[0]))
        put(tmp_path / "three" / "mine" / "train" / f"p_{role}.png", png(CLIP[0]))
    assert refusal(tmp_path / "two") == f"RAW/{CLIP_TASK}/train/p_input.png: is a picture, but {CLIP_TASK} is a task of clips"
    put_pair(tmp_path / "three" / "mine" / "test")
    assert refusal(tmp_path / "three").startswith("RAW/mine: holds pairs of pictures and pairs of clips")
    put_frames(tmp_path / "four" / "mine" / "train" / "p_target")
    put(tmp_path / "four" / "mine" / "train" / "p_input.png", png(CLIP[0]))
    assert refusal(tmp_path / "four") == "RAW/mine/train/p_target: is a clip, but its input is a picture"


def test_a_bad_clip_is_skipped_and_the_others_are_found(tmp_path: Path) -> None:
    for name in "abc":
        put_pair(tmp_path / CLIP_TASK / "train", name)
    (tmp_path / CLIP_TASK / "train" / "b_input" / "003.png").unlink()
    put(tmp_path / CLIP_TASK / "train" / "c_target" / "notes.txt", b"")
    found = find(tmp_path, on_bad="skip")
    assert [pair.scene[:7] for pair in found.pairs] == ["pair-a-", "pair-c-"]
    assert [Path(skipped.label).name for skipped in found.skipped] == ["b_input", "notes.txt"]


def test_numbers_of_any_length_are_in_order() -> None:
    names = ["9", "10", f"{'0' * 5000}11", "1" * 5000, "2" * 5000, "a", "a2b", "a10", "a10b"]
    assert sorted(set(names), key=natural_order) == names
