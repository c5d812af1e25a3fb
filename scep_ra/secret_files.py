"""Read the secrets that configurations name by file: shared secrets, passwords, tokens.

One rule for all of them: a file of its own that nobody else can read. What is read is never part of a message.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from scep_ra.errors import Misconfigured

_OTHERS: Final = 0o077
_MAX_BYTES: Final = 65536  # a token may be long; a disk image is a mistake


def read_secret(file: Path) -> str:
    """Return the text of a file without the line break at its end; call it late, so that secrets can be changed.

    Raise Misconfigured when the file is not there or cannot be read, is open to other users, is no text, or is empty.
    """
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & _OTHERS:
            raise Misconfigured(f"{file} holds a secret and is open to other users (mode {mode:04o}): chmod 600 {file}")
        with file.open("rb") as opened:
            secret = opened.read(_MAX_BYTES).decode("utf-8").rstrip("\r\n")
    except FileNotFoundError as error:
        mend = f"write it, alone, with install -m 600 /dev/stdin {file}"
        raise Misconfigured(f"{file} should hold a secret and is not there: {mend}") from error
    except OSError as error:
        raise Misconfigured(f"{file} should hold a secret and cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        # Without the cause, which quotes octets.
        raise Misconfigured(f"{file} should hold a secret as text, and is not UTF-8") from None
    if not secret:
        raise Misconfigured(f"{file} should hold a secret and is empty")
    return secret
