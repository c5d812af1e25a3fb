"""Claims about the parts that server and command line share: which database is opened, which authorizers are made."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from scep_ra.aaa.base import Accept, Authorizer, Decision, Defer, Reject
from scep_ra.aaa.registry import Parts
from scep_ra.ca.base import CertificateAuthority, SupportsOCSP
from scep_ra.config import Config, Settings, StorageConfig
from scep_ra.errors import ConfigurationError, Misconfigured, Unavailable
from scep_ra.parts import load_authorizers, load_cas, ocsp_responders, open_database, open_store
from scep_ra.pki.algorithms import SignatureScheme
from scep_ra.pki.keys import load_private_key
from scep_ra.storage.base import DeviceStore
from scep_ra.storage.migrations import Upgrade, schema_version
from scep_ra.storage.postgresql import PostgresqlDatabase
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.authorizers import Scripted, question
from tests.support.enrollment import Clock, ScriptedCA, local_ca
from tests.support.postgresql import PostgresqlServer


def settings(directory: Path, storage: StorageConfig) -> Settings:
    return Settings(config=Config(storage=storage), config_file=None, data_dir=directory / "var")


async def test_without_a_word_the_store_is_a_file_in_the_data_directory(tmp_path: Path) -> None:
    """Made with its tables."""
    database = await open_database(settings(tmp_path, StorageConfig()))
    assert isinstance(database, SqliteDatabase)
    assert await database.read(schema_version) > 0
    await database.close()
    assert (tmp_path / "var" / "scep-ra.sqlite").exists()


async def test_the_schema_is_left_alone_where_the_caller_says_so(tmp_path: Path) -> None:
    """For commands that look at it themselves."""
    database = await open_database(settings(tmp_path, StorageConfig()), Upgrade.NEVER)
    assert await database.read(schema_version) == 0
    await database.close()


async def test_a_url_opens_postgresql_with_the_password_from_a_file(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    """The file is relative to the data directory."""
    dsn = postgresql_server.new_guarded_database("parts", password="right")
    (tmp_path / "var").mkdir(mode=0o700)
    (tmp_path / "var" / "password").touch(mode=0o600)
    (tmp_path / "var" / "password").write_text("right\n")
    storage = StorageConfig(type="postgresql", dsn=dsn, password_file="password")
    database = await open_database(settings(tmp_path, storage))
    assert isinstance(database, PostgresqlDatabase)
    await database.close()


async def test_a_store_on_postgresql_works(tmp_path: Path, postgresql_dsn: str) -> None:
    """Without a password file, as the role that the server trusts."""
    async with open_store(settings(tmp_path, StorageConfig(type="postgresql", dsn=postgresql_dsn))) as store:
        await store.check()


async def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra, because most set-ups need none."""
    monkeypatch.delitem(sys.modules, "scep_ra.storage.postgresql")
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    storage = StorageConfig(type="postgresql", dsn="postgresql://u@/d")
    with pytest.raises(Misconfigured, match=r'needs asyncpg: run pip install "scep-ra\[postgresql\]"'):
        await open_database(settings(tmp_path, storage))


# --- authorizers ---------------------------------------------------------------------------------------------------


class Door(Scripted):
    """A plug-in that does as its options say, and tells when it is closed."""

    made: ClassVar[list[Door]] = []

    def __init__(self, parts: Parts, options: Mapping[str, object]) -> None:
        answers: dict[str, Decision] = {"yes": Accept(attributes={"door": parts.name}), "no": Reject(reason="locked")}
        super().__init__(answer=answers.get(str(options.get("says"))) or Unavailable("nobody there"))
        self.parts, self.options, self.closed = parts, options, False
        Door.made.append(self)

    async def close(self) -> None:
        self.closed = True


class Dud(Door):
    """A plug-in that does not take its options."""

    def __init__(self, _parts: Parts, _options: Mapping[str, object]) -> None:
        raise ConfigurationError("there is no such door")


@pytest.fixture
def doors() -> Iterator[list[Door]]:
    Door.made.clear()
    yield Door.made
    Door.made.clear()


def with_doors(directory: Path, **tables: dict[str, Any]) -> Settings:
    """Return settings with these [aaa.NAME] tables, doors where they name no type."""
    full = {name: {"type": f"{__name__}:Door", **table} for name, table in tables.items()}
    return Settings(config=Config.model_validate({"aaa": full}), config_file=None, data_dir=directory)


@asynccontextmanager
async def loaded(settings: Settings) -> AsyncIterator[Mapping[str, Authorizer]]:
    devices: DeviceStore = SqlStore.__new__(SqlStore)
    async with load_authorizers(settings, devices) as authorizers:
        yield authorizers


async def test_a_backend_gets_its_own_keys_and_what_it_is_lent(tmp_path: Path, doors: list[Door]) -> None:
    """What the guard needs stays with the guard, and it is closed in the end."""
    table = {"says": "yes", "timeout_s": 2.0, "cache_s": 1.0}
    async with loaded(with_doors(tmp_path, front=table)) as authorizers:
        assert await authorizers["front"].authorize(question()) == Accept(attributes={"door": "front"})
        (door,) = doors
        assert not door.closed
    assert door.options == {"says": "yes"}
    assert (door.parts.name, door.parts.data_directory, door.parts.timeout_s) == ("front", tmp_path, 2.0)
    assert door.closed


async def test_the_table_says_what_devices_hear_while_there_is_no_answer(tmp_path: Path, doors: list[Door]) -> None:
    """They wait, unless they are to come again."""
    async with loaded(with_doors(tmp_path, waits={}, fails={"on_error": "unavailable"})) as authorizers:
        assert await authorizers["waits"].authorize(question()) == Defer(
            reason="AAA gave no answer: aaa.waits: nobody there"
        )
        with pytest.raises(Unavailable, match=r"^aaa\.fails: nobody there$"):
            await authorizers["fails"].authorize(question())


async def test_chains_find_their_members_wherever_they_stand(tmp_path: Path, doors: list[Door]) -> None:
    """Each backend is made once, however many ask it."""
    tables: dict[str, dict[str, Any]] = {
        "outer": {"type": "first", "members": ("dead", "inner")},
        "inner": {"type": "all", "members": ("front", "back")},
        "either": {"type": "any", "members": ("back", "front")},
        "front": {"says": "yes"},
        "back": {"says": "yes"},
        "dead": {},
    }
    async with loaded(with_doors(tmp_path, **tables)) as authorizers:
        assert set(authorizers) == set(tables)
        accepted = {name: await authorizers[name].authorize(question()) for name in ("outer", "inner", "either")}
    assert accepted == {
        "outer": Accept(attributes={"door": "front"}),
        "inner": Accept(attributes={"door": "front"}),
        "either": Accept(attributes={"door": "back"}),
    }
    assert sorted(door.parts.name for door in doors) == ["back", "dead", "front"]


async def test_in_a_chain_silence_stays_silence(tmp_path: Path, doors: list[Door]) -> None:
    """A member's own "pending" would be an answer, and the next member would not be asked."""
    tables: dict[str, dict[str, Any]] = {"dead": {"on_error": "pending"}, "front": {"says": "no"}}
    chain = {"type": "first", "members": ("dead", "front")}
    async with loaded(with_doors(tmp_path, chain=chain, **tables)) as authorizers:
        assert await authorizers["chain"].authorize(question()) == Reject(reason="locked")


async def test_what_was_made_before_a_mistake_is_closed(tmp_path: Path, doors: list[Door]) -> None:
    """Nothing stays open behind an error message."""
    settings = with_doors(tmp_path, front={"says": "yes"}, dud={"type": f"{__name__}:Dud"})
    with pytest.raises(ConfigurationError, match="no such door"):
        await loaded(settings).__aenter__()
    assert [door.closed for door in doors] == [True]


# --- who answers OCSP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key_type", "scheme"), [("rsa-2048", SignatureScheme.RSA_PKCS1), ("ec-p384", SignatureScheme.ECDSA)]
)
async def test_who_can_verify_a_ca_can_verify_its_ocsp_answers(
    key_type: str, scheme: SignatureScheme, tmp_path: Path
) -> None:
    """The key that signs them is of the CA's kind."""
    config = Config.model_validate({"ca": {"default": {"key_type": key_type, "tiers": 1}}})
    there = Settings(config=config, config_file=None, data_dir=tmp_path / "var")
    async with open_store(there) as store:
        (responder,) = (await ocsp_responders(there, store, load_cas(there))).values()
        await responder.check()
    assert load_private_key((tmp_path / "var/ca/default/ocsp.key").read_bytes()).scheme is scheme


@pytest.mark.parametrize("ocsp", [True, False])
async def test_ocsp_is_answered_for_those_that_allow_it_and_are_told_to(ocsp: bool, tmp_path: Path) -> None:
    """An authority that keeps its own list of what is revoked is asked there."""
    config = Config.model_validate({"ca": {"local": {"ocsp": ocsp}, "remote": {}}})
    there = Settings(config=config, config_file=None, data_dir=tmp_path / "var")
    ours = local_ca(now=Clock(), name="local")
    authorities: dict[str, CertificateAuthority] = {"local": ours, "remote": ScriptedCA(ours)}
    assert [name for name, each in authorities.items() if isinstance(each, SupportsOCSP)] == ["local"]
    async with open_store(there) as store:
        assert list(await ocsp_responders(there, store, authorities)) == (["local"] if ocsp else [])
