"""The data directory as a whole: made with mode 0700 and a commented configuration at first start.

What the folders below hold is their owners' business (`ca.directory`, `storage.sqlite`).
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from scep_ra.config import Settings
from scep_ra.config_file import CONFIG_FILE_NAME, render_template
from scep_ra.enrollment.challenges import SEAL_KEY_BYTES, ChallengeSeal
from scep_ra.errors import Misconfigured

_PRIVATE_DIRECTORY: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_OTHERS: Final = 0o077
_SEAL_KEY: Final = "challenge.key"


def prepare(settings: Settings) -> None:
    """Make the data directory if it is not there, with a configuration file unless one was given.

    Raise Misconfigured when it cannot be made, or is there and open to others.
    """
    directory = settings.data_dir
    try:
        _make_private(directory)
    except OSError as error:
        raise Misconfigured(
            f"{directory} cannot be the data directory: {error.strerror}; choose another with --data"
        ) from error
    if settings.config_file is None:
        _create(directory / CONFIG_FILE_NAME, render_template().encode())


def _make_private(directory: Path) -> None:
    # mkdir(parents=True) would leave the mode of the parents to the umask, and whoever owns them owns what is below.
    for path in (*reversed(directory.parents), directory):
        path.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & _OTHERS:
        if any(directory.iterdir()):
            raise Misconfigured(f"{directory} holds private keys and has mode {mode:04o}: run chmod 700 {directory}")
        directory.chmod(_PRIVATE_DIRECTORY)


def challenge_seal(directory: Path) -> ChallengeSeal:
    """Return the seal for challenges that must be readable (password-based envelope), its key made at first use."""
    path = directory / _SEAL_KEY
    _create(path, secrets.token_bytes(SEAL_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != SEAL_KEY_BYTES:
        raise Misconfigured(f"{path} does not hold {SEAL_KEY_BYTES} octets: restore it from a backup")
    return ChallengeSeal(key=key)


def _create(path: Path, octets: bytes) -> None:
    """Write a private file if there is none, in one step that two starts at once cannot both win."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
