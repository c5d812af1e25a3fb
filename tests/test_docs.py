"""Claims about what is written for people: options, examples, and the absence of loose ends."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from scep_ra.config import Config
from scep_ra.config_file import _kinds

ROOT: Final = Path(__file__).parent.parent
# Put together here, so that this file does not find itself.
LOOSE_ENDS: Final = re.compile("TO" + "DO|FIX" + "ME|X" + "XX")
MAX_LINES: Final = 500
MAX_FUNCTION_LINES: Final = 60


TEXTS: Final = ("*.md", "*.cfg", "*.toml", "config/*", "docs/*", "scripts/*", "scep_ra/**/*.py", "tests/**/*.py")


def files(*patterns: str) -> list[Path]:
    """Return the files below the root that fit one of the patterns."""
    return sorted(file for pattern in patterns for file in ROOT.glob(pattern) if file.is_file())


def options(model: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Yield every option below a model with its help; where the operator chooses names, as in an example."""
    for name, field in model.model_fields.items():
        if kinds := _kinds(field.annotation):
            for example, table in kinds.items():
                yield from options(table, (*path, name, example))
        elif hasattr(field.annotation, "model_fields"):
            yield from options(field.annotation, (*path, name))
        else:
            yield (*path, name), field.description


OPTIONS: Final = dict(options(Config))


@pytest.mark.parametrize("path", OPTIONS, ids=".".join)
def test_every_option_has_help_and_stands_in_the_reference_file(path: tuple[str, ...]) -> None:
    """config/scep-ra.toml is the manual of the options."""
    text = (ROOT / "config" / "scep-ra.toml").read_text("utf-8")
    *table, name = path
    # Tables that are there by default are called so; of the others an example stands in the file.
    header = re.escape(".".join(table)).replace(r"\.name", r"\.(name|default)")
    section = re.search(rf"^#?\[{header}\]\n(.*?)(?=^#?\[|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert section, f"[{'.'.join(table)}] is not there"
    assert re.search(rf"^#?{name} = ", section[0], flags=re.MULTILINE), f"{section[0].splitlines()[0]} lacks {name}"
    assert (OPTIONS[path] or "").endswith(".")


def test_nothing_is_left_for_later() -> None:
    """What is in the tree is finished; what is not is in an issue."""
    assert [str(file) for file in files(*TEXTS) if LOOSE_ENDS.search(file.read_text("utf-8"))] == []


@pytest.mark.parametrize("file", files("scep_ra/**/*.py"), ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_and_functions_can_be_read_in_one_go(file: Path) -> None:
    """A module has fewer than 500 lines, a function at most 60."""
    text = file.read_text("utf-8")
    assert text.count("\n") < MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{file}: {node.name}"


def test_the_lock_files_pin_every_package_with_hashes() -> None:
    """And name no index, so that an installation asks the one that its owner chose."""
    for file in files("scripts/locked/*.txt"):
        lines = [line for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
        pins = [line for line in lines if not line.startswith("    --hash=sha256:")]
        assert pins
        assert all(re.match(r"[a-z0-9-]+==\S+ (; .+ )?\\$", pin) for pin in pins)
        assert "://" not in "".join(lines)


def test_what_is_tested_is_what_is_served() -> None:
    """Both locks have the same versions of what the server needs."""
    run, test = (
        set(
            re.findall(r"^[a-z0-9-]+==\S+", (ROOT / "scripts" / "locked" / name).read_text("utf-8"), flags=re.MULTILINE)
        )
        for name in ("run.txt", "test.txt")
    )
    assert run < test
