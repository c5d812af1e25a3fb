"""Claims about finding a certification authority by its type."""

from __future__ import annotations

import asyncio
import secrets
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from scep_ra import plugins
from scep_ra.ca import registry
from scep_ra.ca.base import CertificateAuthority
from scep_ra.ca.local import LocalCA
from scep_ra.ca.registry import Options, Parts, load_authority
from scep_ra.errors import ConfigurationError
from tests.support.pki import NOW

LOCAL = {"key_type": "ec-p256", "crl_validity_h": 2}


def parts_at(data_directory: Path) -> Parts:
    return Parts(
        name="default",
        data_directory=data_directory,
        now=lambda: NOW,
        random=secrets.token_bytes,
        run=asyncio.to_thread,
    )


def make_plugin(parts: Parts, options: Options) -> CertificateAuthority:
    """Stand for a factory that somebody else wrote."""
    return load_authority("local", parts, {**LOCAL, **options})


async def test_the_built_in_type_makes_a_local_authority_ready_to_sign(tmp_path: Path) -> None:
    """From an empty data directory, with the table's keys."""
    authority = load_authority("local", parts_at(tmp_path), LOCAL)
    assert isinstance(authority, LocalCA)
    assert authority.name == "default"
    assert authority.crl_validity.total_seconds() == 7200
    await authority.check()


@pytest.mark.parametrize("options", [{}, {**LOCAL, "colour": "red"}])
def test_options_that_do_not_describe_a_local_authority_are_refused(options: Options, tmp_path: Path) -> None:
    """Unknown or missing keys, before any key is made."""
    with pytest.raises(ConfigurationError, match=r"\[ca\.default\] does not describe a local CA"):
        load_authority("local", parts_at(tmp_path), options)
    assert list(tmp_path.iterdir()) == []


def test_a_class_or_function_can_be_named_by_its_path(tmp_path: Path) -> None:
    """`package.module:Class`, as in tests and small set-ups."""
    assert load_authority(f"{__name__}:make_plugin", parts_at(tmp_path), {}).name == "default"


def test_an_installed_entry_point_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package only has to be installed."""
    entry = EntryPoint(name="theirs", value=f"{__name__}:make_plugin", group=registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: EntryPoints([entry]).select(group=group))
    assert load_authority("theirs", parts_at(tmp_path), {}).name == "default"
    with pytest.raises(ConfigurationError, match='did you mean "theirs"'):
        load_authority("thiers", parts_at(tmp_path), {})


@pytest.mark.parametrize("path", ["no.such.module:Class", "scep_ra.ca.local:Missing", ":", "scep_ra.ca.local:"])
def test_a_path_that_leads_nowhere_is_reported(path: str, tmp_path: Path) -> None:
    """With the path, so that the typing error can be seen."""
    with pytest.raises(ConfigurationError, match=f'"{path}"'):
        load_authority(path, parts_at(tmp_path), {})
