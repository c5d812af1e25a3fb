"""Read the files of tests/vectors (its README says where each comes from)."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

VECTORS: Final = Path(__file__).parents[1] / "vectors"
CAPTURED_REQUESTS: Final = tuple(sorted(path.name for path in VECTORS.glob("*.http")))
CAPTURED_REPLIES: Final = tuple(sorted(path.name for path in VECTORS.glob("*.der")))


def read(name: str) -> bytes:
    """Return the octets of one file."""
    return (VECTORS / name).read_bytes()


def message(name: str) -> bytes:
    """Return the CMS message of a captured request, as DER: its body, or the `message` in its target."""
    head, _, body = read(name).partition(b"\r\n\r\n")
    if body:
        return body
    text = re.search(r"[?&]message=([^& ]*)", head.decode("ascii"))
    assert text is not None, f"{name} holds no message"
    digits = re.sub(r"\s", "", unquote(text[1])).replace("-", "+").replace("_", "/")
    return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
