import itertools
import os
import tarfile
import time
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lavin_dit.data.raw.images import decode_image
from lavin_dit.data.raw.pairs import RawData, find_raw, read_pair, read_photo
from lavin_dit.data.raw.refusals import OnBad
from lavin_dit.data.raw.sources import Source, list_tar
from lavin_dit.errors import InputError
from tests.lavin_dit.data.raw.bad_files import (
    MAX_MEGAPIXELS,
    bad_pictures,
    odd_pictures,
    picture,
    saved,
    tar_of,
    tar_that_goes_round,
    with_header_checksums,
    write_bad_pictures,
)

GOOD = saved(picture())
RESOLUTION = 8


def put(path: Path, content: bytes = GOOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def find(root: Path, on_bad: OnBad = "stop") -> RawData:
    return find_raw(root, seed=0, test_fraction=0.0, on_bad=on_bad)


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", bad_pictures())
def test_a_bad_picture_is_refused_in_one_sentence_that_names_it(tmp_path: Path, name: str) -> None:
    content, reason = bad_pictures()[name]
    label = str(put(tmp_path / "photos" / name, content))
    photo = find(tmp_path).photos[0]
    assert refusal(lambda: read_photo(photo, resolution=RESOLUTION, max_megapixels=MAX_MEGAPIXELS)).startswith(f"{label}: {reason}")


@pytest.mark.parametrize("name", odd_pictures())
def test_an_unusual_picture_is_read_as_what_it_shows(name: str) -> None:
    content, colour = odd_pictures()[name]
    shown = np.asarray(decode_image(content, label=name, max_megapixels=MAX_MEGAPIXELS))
    assert shown.shape[2] == 3
    assert set(map(tuple, shown.reshape(-1, 3))) == {tuple(colour)}


def test_a_file_larger_than_its_pixels_could_be_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = put(tmp_path / "photos" / "a.png")
    with path.open("r+b") as stream:
        stream.truncate(2**40)
    photo = find(tmp_path).photos[0]
    reason = refusal(lambda: read_photo(photo, resolution=RESOLUTION, max_megapixels=MAX_MEGAPIXELS))
    assert reason == f"{path}: is 1048576 MiB large: at most 64 MiB are read"


def test_what_is_bad_is_skipped_with_its_reason_and_the_rest_is_found(tmp_path: Path) -> None:
    good = [put(tmp_path / name) for name in ("depth/train/a_input.png", "depth/train/a_target.png", "photos/p.png", "holiday/h.png")]
    tar = tar_of({"b_input.png": GOOD, "b_target.png": GOOD, "../c_input.png": GOOD}, d_input=tarfile.SYMTYPE)
    put(tmp_path / "depth" / "train" / "some.tar", tar)
    bad = {
        "a.png": "lies outside of a task's folder",
        "My Task": "a task's folder is named with",
        "depth/valid": "lies beside a task's splits",
        "depth/train/alone_input.png": "has no target",
        "depth/train/a_input.webp": "repeats the name a_input",
        "depth/train/b.png": "must be named <name>_input or <name>_target",
        "depth/train/notes.txt": "is not an image or a video",
        "depth/train/cut.tar": "cannot be read as an uncompressed tar",
        "photos/film.mp4": "is not an image that can be read here",
        "normals/train/notes.txt": "is not an image or a video",
    }
    for name in bad:
        put(tmp_path / (name if Path(name).suffix else f"{name}/train/a_input.png"))
    (tmp_path / "photos" / "gone.png").symlink_to("nowhere.png")
    found = find(tmp_path, "skip")
    assert {pair.scene[:7] for pair in found.pairs} == {"pair-a-", "pair-b-"}
    assert {photo.source.path for photo in found.photos} == set(good[2:])
    reasons = {skipped.label: skipped.reason for skipped in found.skipped}
    expected = bad | {
        "depth/train/some.tar: ../c_input.png": "its member '../c_input.png' would lie outside",
        "depth/train/some.tar: d_input": "its member 'd_input' is a link or a special file",
        "photos/gone.png": "is a symbolic link that leads nowhere",
    }
    assert {label.removeprefix(f"{tmp_path}/") for label in reasons} == set(expected)
    for name, reason in expected.items():
        assert reason in reasons[f"{tmp_path}/{name}"]


def test_each_bad_file_that_is_skipped_would_have_stopped_the_run_with_the_same_sentence(tmp_path: Path) -> None:
    put(tmp_path / "depth" / "train" / "alone_target.png")
    (skipped,) = find(tmp_path, "skip").skipped
    assert refusal(lambda: find(tmp_path)) == skipped.reason


def test_a_folder_of_bad_pictures_is_listed_without_opening_one(tmp_path: Path) -> None:
    expected = write_bad_pictures(tmp_path / "photos")
    found = find(tmp_path)
    assert {photo.source.path for photo in found.photos} == set(expected)
    for photo in found.photos:
        reason = refusal(lambda photo=photo: read_photo(photo, resolution=RESOLUTION, max_megapixels=MAX_MEGAPIXELS))
        assert reason.startswith(expected[photo.source.path])


def test_folders_that_are_read_otherwise_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "p.png")
    put(tmp_path / "coco" / "annotations" / "instances.json", b"{}")
    put(tmp_path / "published" / "voc" / "notes.txt", b"")
    (tmp_path / "linked").symlink_to(tmp_path)
    found = find_raw(tmp_path, seed=0, test_fraction=0.0, without={"coco", "published/voc", "linked"})
    assert [photo.source.name.name for photo in found.photos] == ["p.png"]


def test_many_tiny_files_take_little_memory_each_and_none_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "train"
    folder.mkdir(parents=True)
    for number, role in itertools.product(range(500), ("input", "target")):
        (folder / f"{number}_{role}.png").touch()
    tracemalloc.start()
    try:
        found = find(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.pairs) == 500
    assert peak / 1000 < 2500


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/")
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: name[0] != ".")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(NAMES.map(lambda name: unicodedata.normalize("NFC", name)), min_size=1, max_size=4))
@example({"한국어", "צילום", "🧑‍🚀 🇪🇺", "tab\tand\nline", "naïve", "a b  c", "CON", "%2e", "-rf"})
def test_pairs_with_names_in_any_script_are_found_whichever_way_accents_are_stored(tmp_path: Path, names: set[str]) -> None:
    root = tmp_path / str(time.perf_counter_ns())
    for name in names:
        put(root / "mine" / "train" / (unicodedata.normalize("NFC", name) + "_input.png"))
        put(root / "mine" / "train" / (unicodedata.normalize("NFD", name) + "_target.png"))
    found = find(root).pairs
    assert len(found) == len({pair.scene for pair in found}) == len(names)
    for pair in found:
        assert pair.scene.isascii()
        assert pair.scene.replace("-", "").replace("_", "").isalnum()
        assert isinstance(pair.input, Source)
        assert pair.input.label.splitlines() == [pair.input.label]
        assert read_pair(pair, resolution=RESOLUTION, max_megapixels=1.0).input.shape == (RESOLUTION, RESOLUTION, 3)


def test_two_names_that_differ_only_in_how_accents_are_stored_are_one_name(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        put(tmp_path / "photos" / unicodedata.normalize(form, "é.png"))
    assert "repeats the name é of" in refusal(lambda: find(tmp_path))


def test_a_name_that_is_no_text_is_refused_in_readable_text(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a\udcff\n.png")
    assert refusal(lambda: find(tmp_path)) == f"{tmp_path}/photos/a\\udcff\\n.png: has a name that is not valid UTF-8: rename it"
    put(tmp_path / "tar" / "photos" / "x.tar", tar_of({"plain.png": GOOD}).replace(b"plain.png", b"pl\xffin.png"))
    mended = with_header_checksums((tmp_path / "tar" / "photos" / "x.tar").read_bytes())
    put(tmp_path / "tar" / "photos" / "x.tar", mended)
    assert "x.tar: pl\\udcffin.png: has a name that is not valid UTF-8" in refusal(lambda: find(tmp_path / "tar"))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "a.png"
    os.mkfifo(path)
    assert refusal(lambda: find(tmp_path)) == f"{path}: is neither a file nor a folder"


SEEDS = {
    "PNG": GOOD,
    "PNG, palette": saved(picture().quantize(8), "PNG"),
    "JPEG": saved(picture(), "JPEG"),
    "JPEG, progressive": saved(picture(), "JPEG", progressive=True),
    "WebP": saved(picture(), "WEBP"),
    "WebP, lossless": saved(picture(), "WEBP", lossless=True),
    "TIFF": saved(picture(), "TIFF"),
    "TIFF, LZW": saved(picture(), "TIFF", compression="tiff_lzw"),
    "TIFF, pages": saved(picture(), "TIFF", save_all=True, append_images=[picture()]),
    "BMP": saved(picture(), "BMP"),
}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Valid bytes with a few of them changed, cut out, repeated, or cut off; the front, where headers lie, is hit as often as the rest."""
    mutant = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        end = draw(st.sampled_from([min(len(mutant), 256), len(mutant)]))
        start = draw(st.integers(0, max(0, end - 1)))
        length = draw(st.integers(1, 24))
        kind = draw(st.sampled_from(["byte", "zeros", "ones", "cut out", "repeat", "cut off"]))
        match kind:
            case "byte":
                mutant[start : start + 1] = bytes([draw(st.integers(0, 255))])
            case "zeros":
                mutant[start : start + 4] = bytes(4)
            case "ones":
                mutant[start : start + 4] = b"\xff\xff\xff\x7f"
            case "cut out":
                del mutant[start : start + length]
            case "repeat":
                mutant[start:start] = mutant[start : start + length]
            case "cut off":
                del mutant[max(1, start) :]
    return bytes(mutant)


def read_or_refuse(read: Callable[[], object]) -> None:
    """A file is read, or refused in one line; nothing else is raised."""
    message = ""
    try:
        read()
    except InputError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@settings(max_examples=150, deadline=5000)
@given(st.sampled_from(sorted(SEEDS)).flatmap(lambda name: damaged(SEEDS[name])))
def test_no_damage_to_a_picture_raises_anything_but_a_refusal(content: bytes) -> None:
    read_or_refuse(lambda: decode_image(content, label="a", max_megapixels=0.1))


TARS = {
    "ustar": tar_of({"a_input.png": GOOD, "a_target.png": GOOD}),
    "long names": tar_of({f"{'long' * 40}_{role}.png": GOOD for role in ("input", "target")}),
    "names with accents": tar_of({f"{'é' * 60}_{role}.png": GOOD for role in ("input", "target")}),
}


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.sampled_from(sorted(TARS)).flatmap(lambda name: damaged(TARS[name])), is_believable=st.booleans())
def test_no_damage_to_a_tar_raises_anything_but_a_refusal(tmp_path: Path, content: bytes, is_believable: bool) -> None:
    path = put(tmp_path / "a.tar", with_header_checksums(content) if is_believable else content)
    read_or_refuse(lambda: [source.read() for source in list_tar(path)])


def test_a_tar_whose_headers_lead_round_in_circles_read_or_refuse(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "x.tar", tar_that_goes_round())
    assert refusal(lambda: find(tmp_path)).endswith(
        "x.tar: cannot be read as an uncompressed tar, it is damaged or cut off (its headers overlap)"
    )


def test_a_header_that_claims_more_than_memory_holds_read_or_refuse(tmp_path: Path) -> None:
    tar = bytearray(TARS["long names"])
    for size in (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\x80\0\0\0\x7f" + bytes(7)):
        tar[124:136] = size
        path = put(tmp_path / "a.tar", with_header_checksums(tar))
        assert "cannot be read as an uncompressed tar" in refusal(lambda path=path: list_tar(path))
