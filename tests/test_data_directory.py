"""Claims about the data directory: nobody else can read it, and nothing in it is made twice."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from scep_ra.config import Config, Settings
from scep_ra.config_file import CONFIG_FILE_NAME, render_template
from scep_ra.data_directory import challenge_seal, prepare
from scep_ra.enrollment.challenges import SEAL_KEY_BYTES
from scep_ra.errors import Misconfigured


def settings(directory: Path, *, config_file: Path | None = None) -> Settings:
    return Settings(config=Config(), config_file=config_file, data_dir=directory)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask")
def test_everything_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """The directory, the parents that had to be made, and the files."""
    directory = tmp_path / "srv" / "scep"

    prepare(settings(directory))
    challenge_seal(directory)

    assert [mode(path) for path in (directory.parent, directory)] == [0o700, 0o700]
    files = sorted(directory.iterdir())
    assert [path.name for path in files] == ["challenge.key", CONFIG_FILE_NAME]
    assert [mode(path) for path in files] == [0o600, 0o600]


def test_the_configuration_is_the_commented_template(tmp_path: Path) -> None:
    """Unless one was given elsewhere; one that is there stays."""
    prepare(settings(tmp_path / "own"))
    prepare(settings(tmp_path / "given", config_file=tmp_path / "given.toml"))

    written = tmp_path / "own" / CONFIG_FILE_NAME
    assert written.read_text("utf-8") == render_template()
    assert list((tmp_path / "given").iterdir()) == []
    written.write_text("# mine\n")
    prepare(settings(tmp_path / "own"))
    assert written.read_text("utf-8") == "# mine\n"


def test_a_directory_that_others_can_read_is_refused_when_it_holds_something(tmp_path: Path) -> None:
    """It may be too late: keys may have been copied, so a person decides."""
    tmp_path.chmod(0o750)
    (tmp_path / "scep-ra.sqlite").touch()

    with pytest.raises(Misconfigured, match=f"has mode 0750: run chmod 700 {tmp_path}"):
        prepare(settings(tmp_path))
    assert mode(tmp_path) == 0o750


def test_an_empty_directory_that_others_can_read_is_closed(tmp_path: Path) -> None:
    """As a package or a volume leaves it."""
    tmp_path.chmod(0o755)

    prepare(settings(tmp_path))

    assert mode(tmp_path) == 0o700


def test_what_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    """With what to do instead."""
    (tmp_path / "file").touch()

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Misconfigured, match=f"^{path} cannot be the data directory: .*; choose another"):
            prepare(settings(path))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say; nothing half-written is left."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(Misconfigured, match=rf"{CONFIG_FILE_NAME} cannot be written: No space left on device"):
        prepare(settings(tmp_path / "var"))
    assert list((tmp_path / "var").iterdir()) == []


def test_a_file_is_on_disk_as_a_whole_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power leaves no empty key behind."""
    synced: list[tuple[int, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append((os.fstat(file).st_size, (tmp_path / "challenge.key").exists()))
    )

    challenge_seal(tmp_path)

    assert synced == [(SEAL_KEY_BYTES, False)]


def test_of_two_starts_at_once_one_writes_and_both_read_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw no file, and the one that is there first stays."""
    barrier, random = Barrier(4), os.urandom

    def wait_for_all(count: int) -> bytes:
        if count == SEAL_KEY_BYTES:
            barrier.wait(timeout=20)
        return random(count)

    monkeypatch.setattr(secrets, "token_bytes", wait_for_all)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with ThreadPoolExecutor(4) as pool:
        seals = list(pool.map(challenge_seal, [tmp_path] * 4))

    assert len({seal.key for seal in seals}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["challenge.key"]


def test_the_seal_is_the_same_at_every_start(tmp_path: Path) -> None:
    """Challenges outlive the process."""
    assert challenge_seal(tmp_path) == challenge_seal(tmp_path)


def test_a_seal_that_was_cut_is_refused(tmp_path: Path) -> None:
    """A new one would make every sealed challenge useless without a word."""
    challenge_seal(tmp_path)
    (tmp_path / "challenge.key").write_bytes(b"short")

    with pytest.raises(Misconfigured, match="does not hold 32 octets: restore it from a backup"):
        challenge_seal(tmp_path)
