"""Claims about the parts that cut devices off, as settings make them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from scep_ra.disconnect_parts import LateCRLs, deletion_cap, make_outbox
from scep_ra.errors import Misconfigured
from scep_ra.headend.sync import DeletionCap
from scep_ra.parts import open_store
from scep_ra.revocation.service import NoCRL
from tests.support.composition import configured


async def test_headends_without_the_library_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra; without headends nobody needs it."""
    monkeypatch.setitem(sys.modules, "pyrad", None)
    for name in [name for name in sys.modules if name.startswith(("scep_ra.radius.", "scep_ra.headend.dae"))]:
        monkeypatch.delitem(sys.modules, name)
    headend = {"vpn": {"address": "127.0.0.1", "secret_file": "s", "disconnect_port": 0}}
    async with open_store(configured(tmp_path)) as store:
        await make_outbox(configured(tmp_path, headend=headend), store).close()
        headend["vpn"]["disconnect_port"] = 3799
        with pytest.raises(Misconfigured, match=r'needs pyrad: run pip install "scep-ra\[radius\]"'):
            make_outbox(configured(tmp_path, headend=headend), store)


async def test_cas_are_loaded_once_and_only_when_a_crl_is_asked_for(tmp_path: Path) -> None:
    """However many ask at the same time."""
    settings = configured(tmp_path)
    async with open_store(settings) as store:
        crls = LateCRLs(settings, store)
        assert not (tmp_path / "ca").exists()
        first, second = await asyncio.gather(crls.current_crl("default"), crls.current_crl("default"))
        assert first == second
        with pytest.raises(NoCRL):
            await crls.current_crl("other")


def test_no_cap_is_the_usual_one() -> None:
    """The option's default."""
    assert (deletion_cap(""), deletion_cap("7")) == (DeletionCap(), DeletionCap(number=7, percent=0))
