"""Finding an authorizer by the type that the configuration names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from scep_ra.aaa.base import Accept, AccessRequest, Decision
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.aaa.registry import ENTRY_POINT_GROUP, Parts, check_type, load_authorizer
from scep_ra.config_aaa import GUARD_KEYS
from scep_ra.config_file import load_settings
from scep_ra.errors import ConfigurationError, Misconfigured
from scep_ra.storage.base import DeviceStore
from scep_ra.storage.sql import SqlStore
from tests.support.records import NOW

NOT_CALLABLE = "a value"
CONFIG_DIR = Path(__file__).parents[2] / "config"


class Lenient:
    """What a plugin may look like."""

    def __init__(self, parts: Parts, options: Mapping[str, object]) -> None:
        self.devices = parts.devices
        self.options = options

    async def authorize(self, request: AccessRequest) -> Decision:
        return Accept(attributes={"device": str(request.device_id)})

    async def check(self) -> None:
        return


class Picky(Lenient):
    """A plugin with opinions."""

    def __init__(self, parts: Parts, options: Mapping[str, object]) -> None:
        super().__init__(parts, options)
        if "level" in options:
            raise ConfigurationError("level is too high")
        raise KeyError(options["secret"])


@pytest.fixture
def parts() -> Parts:
    devices: DeviceStore = SqlStore.__new__(SqlStore)
    return Parts(devices=devices, now=lambda: NOW)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution whose entry points are a plugin and a rival of a built-in type."""
    metadata = tmp_path / "lenient-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lenient\nVersion: 1.0\n")
    entries = f"lenient = {__name__}:Lenient\nregistry = {__name__}:Lenient\n"
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{entries}")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


def test_the_registry_is_built_in(parts: Parts) -> None:
    """And needs no options."""
    assert isinstance(load_authorizer("registry", parts, {}), RegistryAuthorizer)


def test_the_registry_refuses_options_by_name(parts: Parts) -> None:
    """A key that does nothing would be believed to do something."""
    with pytest.raises(ConfigurationError, match="remove cache_s, file"):
        load_authorizer("registry", parts, {"cache_s": 60, "file": "x"})


def test_an_installed_plugin_is_found_by_its_name(parts: Parts, plugin: None) -> None:
    """It gets the parts and its options."""
    authorizer = load_authorizer("lenient", parts, {"level": 3})
    assert type(authorizer).__name__ == "Lenient"
    assert vars(authorizer) == {"devices": parts.devices, "options": {"level": 3}}


def test_an_installed_plugin_cannot_take_the_place_of_a_built_in_type(parts: Parts, plugin: None) -> None:
    """Installing a package must not change who decides."""
    assert isinstance(load_authorizer("registry", parts, {}), RegistryAuthorizer)


def test_a_plugin_that_cannot_be_made_is_named_without_what_it_quotes(parts: Parts) -> None:
    """An options' value may be a secret."""
    with pytest.raises(
        ConfigurationError, match=r'authorizer ".*:Picky" of \[aaa\.own\] cannot be made: KeyError'
    ) as caught:
        load_authorizer(f"{__name__}:Picky", replace(parts, name="own"), {"secret": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_a_plugin_may_say_itself_what_is_wrong_with_its_options(parts: Parts) -> None:
    """In its own words."""
    with pytest.raises(ConfigurationError, match="level is too high"):
        load_authorizer(f"{__name__}:Picky", parts, {"level": 11})


def test_the_name_of_a_plugin_is_checked_without_importing_it(plugin: None) -> None:
    """A path is believed until the start."""
    check_type("lenient", ["registry"])
    check_type("no.such.module:Class", ["registry"])
    with pytest.raises(ConfigurationError, match='there is no authorizer of type "registri"; did you mean "registry"'):
        check_type("registri", ["registry"])


def test_a_class_is_found_by_its_path(parts: Parts) -> None:
    """No packaging is needed."""
    assert type(load_authorizer(f"{__name__}:Lenient", parts, {})).__name__ == "Lenient"


@pytest.mark.parametrize(
    ("name", "hint"), [("registri", 'did you mean "registry"'), ("xyz", "there are: accept-all, .*, or package")]
)
def test_an_unknown_type_is_refused_with_the_nearest_or_all(parts: Parts, name: str, hint: str) -> None:
    """The operator reads what to write."""
    with pytest.raises(ConfigurationError, match=f'no authorizer of type "{name}"; {hint}'):
        load_authorizer(name, parts, {})


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no.such.module:Class", "No module named 'no'; look at its type, and whether it is installed where /"),
        (f"{__name__}:Missing", "has no attribute 'Missing'"),
        ("not a module:Class", "invalid format"),
        (f"{__name__}:NOT_CALLABLE", "no class or function"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_the_reason(parts: Parts, path: str, reason: str) -> None:
    """Before anything is served."""
    with pytest.raises(ConfigurationError, match=reason):
        load_authorizer(path, parts, {})


@pytest.mark.parametrize("file", ["ldap.toml", "sql.toml", "command.toml"])
def test_the_examples_of_backends_make_authorizers(parts: Parts, file: str) -> None:
    """Their tables are complete."""
    settings = load_settings(config=CONFIG_DIR / file, environ={})
    (table,) = settings.config.aaa.values()
    assert load_authorizer(table.type, parts, table.model_dump(exclude=set(GUARD_KEYS)))


def test_an_sqlite_file_needs_no_driver_and_postgresql_says_how_to_get_one(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the command."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, "scep_ra.aaa.sql_postgresql", raising=False)
    table = {"dsn": "", "password_file": "", "path": "x", "authorize": "SELECT 1", "pool_size": 1}
    assert load_authorizer("sql", parts, table)
    with pytest.raises(Misconfigured, match=r'needs asyncpg: run pip install "scep-ra\[postgresql\]"'):
        load_authorizer("sql", parts, {**table, "dsn": "postgresql://localhost/d"})


def test_a_mistake_in_a_table_is_told_with_its_name(parts: Parts) -> None:
    """There may be several of a type."""
    table = {"argv": ("authorize",), "max_output_bytes": 1, "max_running": 1}
    with pytest.raises(ConfigurationError, match=r"^\[aaa.corp\]: argv begins with"):
        load_authorizer("command", replace(parts, name="corp"), table)
