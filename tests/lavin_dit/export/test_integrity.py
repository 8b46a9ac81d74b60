import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lavin_dit.errors import InputError
from lavin_dit.export.integrity import checksums_digest, read_checksums, verify_checksums, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "contexts").mkdir(parents=True)
    (folder / "bundle.json").write_text("{}\n")
    (folder / "with space.md").write_text("card")
    (folder / "contexts" / "depth.npz").write_bytes(bytes(range(256)))
    write_checksums(folder)
    return folder


def test_a_folder_just_written_verifies(folder: Path) -> None:
    verify_checksums(folder)
    assert read_checksums(folder)["bundle.json"] == hashlib.sha256(b"{}\n").hexdigest()
    assert set(read_checksums(folder)) == {"bundle.json", "with space.md", "contexts/depth.npz"}


def test_sha256sum_reads_the_file(folder: Path) -> None:
    sha256sum = shutil.which("sha256sum")
    if not sha256sum:
        pytest.skip("this machine has no sha256sum")
    subprocess.run([sha256sum, "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_writing_again_changes_nothing(folder: Path) -> None:
    before = (folder / "SHA256SUMS").read_bytes()
    write_checksums(folder)
    assert (folder / "SHA256SUMS").read_bytes() == before


def test_the_digest_names_the_content_not_the_place(folder: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(folder, tmp_path / "twin")
    assert checksums_digest(twin) == checksums_digest(folder)
    (twin / "bundle.json").write_text("[]\n")
    write_checksums(twin)
    assert checksums_digest(twin) != checksums_digest(folder)


def test_a_changed_file_is_named(folder: Path) -> None:
    (folder / "contexts" / "depth.npz").write_bytes(b"tampered")
    with pytest.raises(InputError, match=r"contexts/depth\.npz: has changed"):
        verify_checksums(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    with pytest.raises(InputError, match=r"bundle\.json: is missing"):
        verify_checksums(folder)


@pytest.mark.parametrize("name", ["more.bin", "contexts/.hidden"])
def test_an_extra_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    with pytest.raises(InputError, match=rf"{name}: is not listed"):
        verify_checksums(folder)


def test_a_link_is_refused_even_where_its_content_matches(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "bundle.json", tmp_path / "elsewhere.json")
    (folder / "bundle.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match=r"bundle\.json: is a link"):
        verify_checksums(folder)
    with pytest.raises(InputError, match=r"bundle\.json: is a link"):
        write_checksums(folder)


def test_a_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "contexts", tmp_path / "contexts")
    (folder / "contexts").symlink_to(tmp_path / "contexts")
    with pytest.raises(InputError, match="contexts: is a link"):
        verify_checksums(folder)


def test_a_linked_list_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "SHA256SUMS", tmp_path / "sums")
    (folder / "SHA256SUMS").symlink_to(tmp_path / "sums")
    with pytest.raises(InputError, match="SHA256SUMS: is a link"):
        verify_checksums(folder)


def test_a_pipe_is_refused_without_waiting_on_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(InputError, match="pipe: is neither a file nor a folder"):
        verify_checksums(folder)


@pytest.mark.parametrize("name", ["../bundle.json", "/etc/hostname", "contexts/../../x", "./bundle.json", ".."])
def test_a_name_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(InputError, match="leaves the folder"):
        verify_checksums(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "lists no file"),
        ("abc  bundle.json\n", "line 1 must be a sha256"),
        (f"{'0' * 64}  a\n{'1' * 64}  a\n", "line 2 lists a a second time"),
    ],
)
def test_a_malformed_list_is_refused(folder: Path, text: str, reason: str) -> None:
    (folder / "SHA256SUMS").write_text(text)
    with pytest.raises(InputError, match=reason):
        verify_checksums(folder)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as a list"):
        verify_checksums(folder)


def test_a_name_with_a_line_break_is_refused_when_writing(folder: Path) -> None:
    (folder / "two\nlines").write_text("x")
    with pytest.raises(InputError, match="line break"):
        write_checksums(folder)


def test_no_folder_and_no_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        write_checksums(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be read as a list"):
        verify_checksums(tmp_path)
    with pytest.raises(InputError, match="cannot be read as a list"):
        checksums_digest(tmp_path / "absent")
