"""What the pages of docs/ show, so that tests run it as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_DOCS: Final = Path(__file__).parent.parent.parent / "docs"


def shown(page: str, beginning: str) -> str:
    """Return the one block of code of a page that begins so."""
    text = (_DOCS / page).read_text("utf-8")
    (found,) = re.findall(rf"^```\w+\n({re.escape(beginning)}.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found)
