"""Claims about files that hold one secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from scep_ra.errors import Misconfigured
from scep_ra.secret_files import read_secret


def secret_file(directory: Path, octets: bytes, mode: int = 0o600) -> Path:
    file = directory / "secret"
    file.touch(mode=mode)
    file.write_bytes(octets)
    return file


def test_the_line_break_of_an_editor_is_no_part_of_the_secret(tmp_path: Path) -> None:
    """Blanks are."""
    assert read_secret(secret_file(tmp_path, b" s3cret \r\n")) == " s3cret "


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    """Group or world."""
    file = secret_file(tmp_path, b"s3cret")
    file.chmod(mode)
    with pytest.raises(Misconfigured, match=rf"open to other users \(mode {mode:04o}\): chmod 600 {file}"):
        read_secret(file)


@pytest.mark.parametrize(
    ("octets", "complaint"), [(b"", "is empty"), (b"\n", "is empty"), (b"s3cret\xff", "not UTF-8")]
)
def test_what_cannot_be_a_secret_is_refused_without_quoting_it(tmp_path: Path, octets: bytes, complaint: str) -> None:
    """An empty secret would match everything."""
    with pytest.raises(Misconfigured, match=complaint) as caught:
        read_secret(secret_file(tmp_path, octets))
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the command that writes it."""
    mend = f"{tmp_path}/absent should hold a secret and is not there: write it, alone, with install -m 600 /dev/stdin "
    with pytest.raises(Misconfigured, match=f"{mend}{tmp_path}/absent$"):
        read_secret(tmp_path / "absent")


def test_what_cannot_be_read_is_named_with_the_reason_of_the_system(tmp_path: Path) -> None:
    """As a directory in place of the file."""
    (tmp_path / "secret").mkdir(mode=0o700)
    with pytest.raises(
        Misconfigured, match=f"{tmp_path}/secret should hold a secret and cannot be read: Is a directory"
    ):
        read_secret(tmp_path / "secret")
