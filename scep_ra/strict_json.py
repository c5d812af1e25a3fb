"""Read JSON objects that others wrote, where a decision hangs on it.

What two readers would read differently is refused: a key that is there twice, NaN, an endless number or nesting. What
the members mean is for whoever asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Never


def read_object(octets: bytes) -> Mapping[str, Any]:
    """Return the object of a JSON text (RFC 8259); raise ValueError, whose text quotes nothing of it."""
    try:
        document = json.loads(octets, object_pairs_hook=_object, parse_constant=_constant)
        json.dumps(
            document, ensure_ascii=False, allow_nan=False
        ).encode()  # half a surrogate pair is no text, 1e999 no number
    except (ValueError, RecursionError):
        raise ValueError("no JSON object, or one that can be read in two ways") from None
    if not isinstance(document, dict):
        raise ValueError("JSON, but no object")  # noqa: TRY004 - as documented
    return document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _constant(_name: str) -> Never:
    raise ValueError
