"""Claims about docs/security.md: no requirement is missing, and what it calls proof exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "security.md").read_text("utf-8")
REQUIREMENTS: Final = [f"SR-{number:02}" for number in range(1, 36)]
# What a good version has; all others are P0, what no version may be without.
GOOD_TO_HAVE: Final = frozenset(f"SR-{n:02}" for n in (11, 12, 19, 25, 26, 27, 31, 32, 33, 34, 35))
ROWS: Final = {
    requirement: (priority, re.findall(r"`([^`]+)`", proof))
    for requirement, priority, proof in re.findall(r"^\| (SR-\d+) \| (P\d) \| .+ \| ([^|]*) \|$", PAGE, re.MULTILINE)
}
NAMED: Final = sorted({test for _, tests in ROWS.values() for test in tests})


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the tests that a file defines, as pytest names them."""
    return frozenset(_names(ast.parse((ROOT / path).read_text("utf-8")).body))


def _names(body: list[ast.stmt], inside: str = "") -> Iterator[str]:
    for node in body:
        match node:
            case ast.ClassDef(name=name):
                yield from _names(node.body, f"{name}::")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                yield f"{inside}{name}"


def test_every_requirement_has_its_row_once_and_in_order() -> None:
    """Reading down the page, none is skipped and none is told twice."""
    assert re.findall(r"^\| (SR-\d+)", PAGE, re.MULTILINE) == REQUIREMENTS
    assert list(ROWS) == REQUIREMENTS


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_every_requirement_is_proved(requirement: str) -> None:
    """P0 or P1, and by at least one test either way."""
    priority, tests = ROWS[requirement]
    assert priority == ("P1" if requirement in GOOD_TO_HAVE else "P0")
    assert tests


@pytest.mark.parametrize("test", NAMED)
def test_what_is_named_as_proof_exists(test: str) -> None:
    """`path::name`, with the class between them where there is one."""
    path, _, name = test.partition("::")
    assert name in names_in(path)
