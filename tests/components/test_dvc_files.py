"""What a stranger's repository and remote may say, and what is made of it."""

import hashlib
import json
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data_version import hash_listing
from components.dvc_files import Output, Remote, dvc_root, find_output, object_place, read_listing, read_remote
from lavin_dit.errors import InputError

RAW = PurePosixPath("data/raw")
MD5 = f"{'0a' * 16}.dir"
TRACKED = f"outs:\n- md5: {MD5}\n  size: 3\n  nfiles: 1\n  hash: md5\n  path: raw\n"
DEFAULT = "[core]\n    remote = Store\n['remote \"store\"']\n"


def find(files: dict[str, str], path: PurePosixPath = RAW) -> Output:
    return find_output(files, files.get, path)


def remote(settings: str, *, name: str | None = None, folder: Path | None = None) -> Remote:
    return read_remote(DEFAULT + settings, name, folder=folder)


@pytest.mark.parametrize(
    "files",
    [
        {"data/raw.dvc": TRACKED},
        {"data/pictures.dvc": TRACKED},
        {"raw.dvc": f"wdir: data\n{TRACKED}"},
        {"all.dvc": TRACKED.replace("path: raw", "path: data/raw")},
        {"data/dvc.lock": f"stages:\n  make:\n    {TRACKED.replace(chr(10), chr(10) + '    ')}"},
        {
            "data/broken.dvc": "[",
            "data/list.dvc": "- 1",
            "data/empty.dvc": "",
            "data/odd.dvc": "outs: [1, {path: 3}]",
            "data/raw.dvc": TRACKED,
        },
    ],
)
def test_an_output_is_found_wherever_dvc_may_say_it(files: dict[str, str]) -> None:
    assert find(files) == Output(MD5, None)


def test_an_output_may_lie_in_a_remote_of_its_own() -> None:
    assert find({"data/raw.dvc": f"{TRACKED}  remote: other\n"}) == Output(MD5, "other")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TRACKED.replace(".dir", ""), "as a single file"),
        (TRACKED.replace("  hash: md5\n", ""), "dvc cache migrate"),
        (TRACKED.replace(MD5, "../../etc/passwd"), "has no md5"),
        (TRACKED.replace("path: raw", "path: /data/raw"), "is not tracked by DVC"),
        (TRACKED.replace("path: raw", "path: s3://bucket/data/raw"), "is not tracked by DVC"),
    ],
)
def test_what_is_no_tracked_folder_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        find({"data/raw.dvc": text})


def test_a_few_lines_that_stand_for_endless_text_do_no_harm() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]
    bomb = "\n".join([*lines, "outs:", "- path: *a11", "  md5: *a11"])
    with pytest.raises(InputError, match="is not tracked"):
        find({"data/raw.dvc": bomb, "data/deep.dvc": "[" * 10_000})


def test_the_nearest_folder_with_a_dvc_configuration_is_the_root() -> None:
    names = [".dvc/config", "sub/.dvc/config", "sub/data/raw.dvc"]
    assert dvc_root(names, PurePosixPath("sub/data/raw")) == PurePosixPath("sub")
    assert dvc_root(names, PurePosixPath("data/raw")) == PurePosixPath()
    assert dvc_root([], PurePosixPath("data/raw")) is None


def test_of_a_remotes_settings_only_where_it_is_counts() -> None:
    harmful = "configpath = evil.cfg\ncredentialpath = evil\nprofile = evil\nssl_verify = false\naccess_key_id = evil\n"
    said = remote(
        f"url = 's3://bucket/prefix/'\nendpointurl = https://store:9000\nregion = eu-west-1\n{harmful.replace('ssl_verify = no', '')}"
    )
    assert said == Remote("s3://bucket/prefix", "https://store:9000", "eu-west-1")
    assert object_place(MD5) == f"files/md5/0a/{'0a' * 15}.dir"


@pytest.mark.parametrize(
    "url",
    [
        "ssh://host/path",
        "http://host/path",
        "gs://bucket",
        "remote://other/path",
        "/var/lib",
        "../elsewhere",
        "file:///etc",
        "s3://",
        "s3://user:secret@bucket/x",
        "s3://bucket/../other",
        "%(x)s",
    ],
)
def test_every_other_place_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"data are read from s3://bucket/prefix") as caught:
        remote(f"url = {url}")
    assert "secret" not in str(caught.value)


def test_a_folder_of_this_machine_is_read_for_a_repository_of_this_machine_only(tmp_path: Path) -> None:
    assert remote("url = ../../store", folder=tmp_path / "repository" / ".dvc") == Remote(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no default remote"),
        ("[core]\nremote = store\n", "has no remote store with a url"),
        (f"{DEFAULT}url = s3://bucket\nversion_aware = true\n", "keeps versions"),
        ("[core\n", "cannot be read"),
        ("core = 1\nremote = 2\n", "names no default remote"),
    ],
)
def test_a_configuration_without_a_remote_to_read_is_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_remote(text, None, folder=None)
    assert "\n" not in str(caught.value)


def listing(names: list[str]) -> tuple[bytes, str]:
    content = json.dumps([{"md5": "0a" * 16, "relpath": name} for name in names]).encode()
    return content, f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir"


def test_a_listing_is_named_by_its_own_content() -> None:
    content, md5 = listing(["a/1.png", "a/2.png", "b"])
    assert list(read_listing(content, md5)) == ["a/1.png", "a/2.png", "b"]
    assert md5 == hash_listing(read_listing(content, md5))
    with pytest.raises(InputError, match="is damaged"):
        read_listing(content + b" ", md5)


@pytest.mark.parametrize("content", [b"", b"[1]", b'[{"md5": "x"}]', b'{"md5": 1}', b"3", b"[" * 100_000, b"\xff"])
def test_what_is_no_listing_is_refused(content: bytes) -> None:
    md5 = f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir"
    with pytest.raises(InputError, match="is no listing"):
        read_listing(content, md5)


PARTS = st.sampled_from(["a", "b", "..", ".", "", "...", "\0", "a b", "\\"])


@given(names=st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=5, unique=True))
def test_no_name_of_an_accepted_listing_leads_out_of_its_folder_or_through_a_file(names: list[str]) -> None:
    content, md5 = listing(names)
    try:
        accepted = read_listing(content, md5)
    except InputError:
        return
    folder = Path("/data")
    places = {(folder / name).resolve() for name in accepted}
    assert len(places) == len(names)
    assert all(place.is_relative_to(folder) and place != folder for place in places)
    assert not any(other in place.parents for place in places for other in places)
