"""Claims about who imports whom: the table of docs/architecture.md, read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = "scep_ra"

# Module or package without the leading `scep_ra.`, and its rank; the longest name that fits counts.
RANKS: Final = MappingProxyType(
    {
        "errors": 0,
        "security_events": 0,
        "plugins": 1,
        "secret_files": 1,
        "strict_json": 1,
        "webhook_signature": 1,
        "pki": 1,
        "scep": 2,
        "identity": 2,
        "radius": 2,
        "ldap": 2,
        "enrollment.types": 3,
        "enrollment.states": 3,
        "aaa.base": 3,
        "ca.base": 3,
        "dsn": 1,
        "storage.base": 3,
        "storage.sessions": 3,
        "storage.audit_chain": 3,
        "enrollment": 4,
        "revocation": 4,
        "headend": 4,
        "aaa": 4,
        "ca": 4,
        "storage": 4,
        "web": 5,
        "telemetry": 5,
        "config": 6,
        "config_aaa": 6,
        "config_base": 6,
        "api_parts": 6,
        "config_api": 6,
        "config_disconnect": 6,
        "config_headend": 6,
        "config_warnings": 6,
        "disconnect_parts": 6,
        "headend_parts": 6,
        "radius_parts": 6,
        "config_file": 6,
        "data_directory": 6,
        "parts": 6,
        "trust_files": 6,
        "welcome": 6,
        "app": 6,
        "audit_trail": 6,
        "supervisor": 6,
        "endpoints": 6,
        "cli": 7,
        "__main__": 8,
    }
)
# Words that the ports share.
VOCABULARY: Final = ("enrollment.types", "enrollment.states")
COMPOSITION_RANK: Final = RANKS["app"]
# Packages that hold a port and its implementations, and the modules in them that are none.
PORTS: Final = ("aaa", "ca", "storage")
NO_IMPLEMENTATIONS: Final = (
    "base",
    "registry",
    "sessions",
    "attributes",
    "guard",
    "trace",
    "audit_chain",
    "archive",
    "consistency",
    "database",
    "migrations",
)
COMPOSITION_ROOT: Final = (
    "app",
    "endpoints",
    "parts",
    "disconnect_parts",
    "headend_parts",
    "radius_parts",
    "data_directory",
)
# Libraries that have one home.
HOMES: Final = MappingProxyType(
    {
        "aiohttp": ("web", "app", "cli", "headend", "aaa.http"),
        "aiohttp.web": ("web", "app"),
        "aiosqlite": ("storage", "aaa.sql_sqlite"),
        "asyncpg": ("storage", "aaa.sql_postgresql"),
        "sqlite3": ("storage", "aaa.sql_sqlite"),
        "click": ("cli",),
        "pydantic": (
            "config",
            "config_aaa",
            "config_base",
            "config_api",
            "config_disconnect",
            "config_headend",
            "config_file",
            "aaa",
            "ca",
        ),
        "pyrad": ("radius",),
        "asn1crypto": (),  # a second opinion for tests; its parsing time is quadratic for hostile input
    }
)
STANDARD_ONLY: Final = ("errors",)
PURE: Final = ("pki", "scep", "identity")
INPUT_OUTPUT: Final = frozenset(
    {"asyncio", "http", "io", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "subprocess", "time"}
)


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module by its name without the leading `scep_ra.`."""
    found = {}
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = file.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text("utf-8"), str(file))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the full names of imported modules, wherever the import stands; relative ones are not in use here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = whole.removeprefix(f"{PACKAGE}.") in modules() or whole in HOMES
                yield whole if is_module else str(node.module)


def own_imports(name: str) -> list[str]:
    """Return the modules of ours that a module imports, without the leading `scep_ra.`."""
    found = (each.removeprefix(PACKAGE).removeprefix(".") for each in imported(modules()[name]) if is_ours(each))
    return [each for each in found if each]


def is_ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def within(name: str, *parts: str) -> bool:
    """Tell whether a module is one of these or below one of them."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def rank(name: str) -> int:
    """Return the rank of the longest entry that fits."""
    return RANKS[max((entry for entry in RANKS if within(name, entry)), key=len)]


def package(name: str) -> str:
    return name.partition(".")[0]


def is_implementation(name: str) -> bool:
    own, _, module = name.partition(".")
    return own in PORTS and module not in ("", *NO_IMPLEMENTATIONS)


MODULES: Final = [name for name in modules() if name]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_rank(name: str) -> None:
    """A new package is entered into the table before it is imported."""
    assert any(within(name, entry) for entry in RANKS), f"enter {name} into RANKS and docs/architecture.md"


@pytest.mark.parametrize("name", MODULES)
def test_modules_import_from_lower_ranks_or_their_own_package(name: str) -> None:
    """Knowledge points downwards, and neighbours do not know each other."""
    for target in own_imports(name):
        is_below = rank(target) < rank(name)
        is_together = package(target) == package(name) or rank(target) == rank(name) == COMPOSITION_RANK
        is_word = rank(name) == rank(target) and within(target, *VOCABULARY)
        assert is_below or is_together or is_word, f"{name} ({rank(name)}) imports {target} ({rank(target)})"


@pytest.mark.parametrize("name", MODULES)
def test_only_the_composition_root_names_implementations(name: str) -> None:
    """Everybody else knows the ports."""
    if not within(name, *COMPOSITION_ROOT):
        foreign = [each for each in own_imports(name) if is_implementation(each) and package(each) != package(name)]
        assert not foreign, f"{name} imports {foreign}"


@pytest.mark.parametrize("name", MODULES)
def test_libraries_stay_in_their_homes(name: str) -> None:
    """One place to look at when a library changes."""
    for each in imported(modules()[name]):
        for library, homes in HOMES.items():
            if within(each, library):
                assert within(name, *homes), f"{name} imports {each}"


@pytest.mark.parametrize("name", MODULES)
def test_the_pure_core_does_no_input_and_output(name: str) -> None:
    """`pki`, `scep` and `identity` get time and randomness as arguments."""
    if within(name, *PURE):
        assert not INPUT_OUTPUT & {package(each) for each in imported(modules()[name])}
    if within(name, *STANDARD_ONLY):
        assert not own_imports(name)


def test_there_are_no_cycles() -> None:
    """Every module can be understood after those that it imports."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for target in own_imports(name):
                visit(target, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())
