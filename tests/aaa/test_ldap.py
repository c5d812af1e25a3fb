"""A directory authorizes devices: against a real OpenLDAP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scep_ra.aaa.base import Accept, Authorizer, MalformedAnswer, Reject
from scep_ra.aaa.ldap import LdapAuthorizer, ldap_settings
from scep_ra.config_aaa import GUARD_KEYS, LdapConfig
from scep_ra.errors import ConfigurationError, Misconfigured, Unavailable
from tests.support.authorizers import question
from tests.support.slapd import BASE, LIMITED_READER, PASSWORD, READER, Slapd, running_slapd
from tests.support.tls import write_server_files

Make = Callable[..., LdapAuthorizer]


@pytest.fixture(scope="module")
def slapd() -> Iterator[Slapd]:
    with running_slapd() as server:
        yield server


@pytest.fixture
async def make(slapd: Slapd, tmp_path: Path) -> AsyncIterator[Make]:
    """Return a function that makes authorizers over the server, each with what a test wants otherwise."""
    made: list[LdapAuthorizer] = []
    password = tmp_path / "ldap.password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)

    def make(**options: Any) -> LdapAuthorizer:
        given = {"url": slapd.url, "base": BASE, "bind_dn": READER, "password_file": password.name, **options}
        made.append(LdapAuthorizer(settings(tmp_path, **given)))
        return made[-1]

    yield make
    for authorizer in made:
        await authorizer.close()


def settings(directory: Path, **options: Any) -> Any:
    table = LdapConfig(**options)
    return ldap_settings(table.model_dump(exclude=set(GUARD_KEYS)), data_directory=directory, timeout_s=2.0)


async def decide(authorizer: Authorizer, device: str = "SN123") -> Any:
    async with asyncio.timeout(20):
        return await authorizer.authorize(question(device))


# --- what it decides ------------------------------------------------------------------------------------------------


async def test_a_device_with_an_entry_is_accepted_with_the_mapped_attributes(make: Make) -> None:
    """Values stay text: digits keep their zeros, TRUE its case; several values become what the name means."""
    names = {
        "user": "description",
        "imei": "raDeviceImei",
        "flag": "RADEVICEFLAG",
        "place": "l",
        "services": "raDeviceService",
        "missing": "seeAlso",
    }
    assert await decide(make(attributes=names)) == Accept(
        attributes={"user": "alice", "imei": "004999010640000", "flag": "TRUE", "place": "Café"},
        services=frozenset({"vpn", "wifi"}),
    )


async def test_several_values_of_a_free_attribute_become_lines(make: Make) -> None:
    """As for every backend."""
    accepted = await decide(make(attributes={"note": "raDeviceService"}))
    assert sorted(accepted.attributes["note"].split("\n")) == ["vpn", "wifi"]


async def test_without_mapped_attributes_being_there_is_enough(make: Make) -> None:
    """Nothing is read then."""
    assert await decide(make(attributes={})) == Accept()


async def test_a_value_that_is_no_text_is_no_answer(make: Make) -> None:
    """Half an answer is none."""
    with pytest.raises(MalformedAnswer, match=r"raDeviceBlob of cn=first,.* is no text: do not map it"):
        await decide(make(attributes={"blob": "raDeviceBlob"}))


async def test_a_device_without_an_entry_is_rejected(make: Make) -> None:
    """Deny by default."""
    assert await decide(make(), "SN-UNKNOWN") == Reject(reason="the directory has no entry for the device")


async def test_two_entries_are_a_no_that_names_them(make: Make) -> None:
    """Nobody can say which of them holds."""
    decision = await decide(make(), "SN-TWIN")
    assert isinstance(decision, Reject)
    assert "several entries for the device, such as cn=twin 1," in decision.reason


async def test_an_entry_must_say_what_is_wanted(make: Make) -> None:
    """A list of values for each attribute; an attribute that is not there says nothing."""
    authorizer = make(accept_if={"raDeviceStatus": ("approved", "lent")}, attributes={})
    assert await decide(authorizer) == Accept()
    assert await decide(authorizer, "SN-BLOCKED") == Reject(
        reason=f"the entry cn=blocked,{BASE} says raDeviceStatus: blocked; wanted: approved or lent"
    )
    strict = make(accept_if={"seeAlso": ("x",)})
    assert await decide(strict) == Reject(reason=f"the entry cn=first,{BASE} says seeAlso: nothing; wanted: x")


@pytest.mark.parametrize(
    "text",
    ["*", "SN*", "*)(objectClass=*", "SN123)(|(cn=*", "\\2a", "SN123\\00", "(", ")", "&", "SN123 or 1=1", "é*", "%2a"],
)
async def test_no_device_id_changes_the_question(make: Make, text: str) -> None:
    """Each is looked for to the letter, and there is no such device."""
    authorizer = make(filter="(|(serialNumber={device.value})(cn={profile}))")
    async with asyncio.timeout(20):
        decision = await authorizer.authorize(question("SN-UNKNOWN", profile=text))
    assert decision == Reject(reason="the directory has no entry for the device")


@pytest.mark.parametrize("text", ["\uff21LICE", "ALI\u0301CE", "A  LICE"])
async def test_a_device_id_that_the_server_would_fold_is_not_asked(make: Make, text: str) -> None:
    """RFC 4518 2: to a directory a full-width letter is the plain one."""
    decision = await decide(make(filter="(description={device.value})"), f"permanent::{text}")
    assert decision == Reject(
        reason="directories take the device ID for others: not ASCII, or with blanks that do not count"
    )


async def test_a_referral_for_the_base_is_not_followed_but_named(make: Make) -> None:
    """Whoever can put up a referral could otherwise name the server that says yes."""
    with pytest.raises(Misconfigured, match=r"referral, which is not followed\): set url to ldap://127.0.0.1:9/"):
        await decide(make(base="ou=elsewhere,dc=example,dc=com"))


async def test_a_reference_below_the_base_is_not_followed_but_named(make: Make) -> None:
    """Active Directory sends some with every search from the root."""
    decision = await decide(make(base="dc=example,dc=com"), "SN-UNKNOWN")
    assert isinstance(decision, Reject)
    assert "it refers to ldap://127.0.0.1:9/ou=elsewhere,dc=example,dc=com" in decision.reason
    assert isinstance(await decide(make(base="dc=example,dc=com")), Accept)


async def test_a_size_limit_of_the_server_does_not_make_one_of_two(make: Make) -> None:
    """It shows the first entry only and says that there are more."""
    with pytest.raises(Misconfigured, match="size limit for bind_dn is too low"):
        await decide(make(bind_dn=LIMITED_READER), "SN-TWIN")


async def test_scope_one_does_not_look_deeper(make: Make) -> None:
    """The devices lie one level below the base, and two below its parent."""
    assert isinstance(await decide(make(scope="one")), Accept)
    assert isinstance(await decide(make(scope="one", base="dc=example,dc=com")), Reject)


# --- ways to it -----------------------------------------------------------------------------------------------------


async def test_it_is_reached_by_ldaps_start_tls_and_a_unix_socket(make: Make, slapd: Slapd) -> None:
    """All are as good as each other."""
    for options in (
        {"url": slapd.url_tls, "ca_file": str(slapd.tls.ca)},
        {"url": slapd.url, "start_tls": True, "ca_file": str(slapd.tls.ca)},
        {"url": slapd.url_socket},
    ):
        authorizer = make(**options)
        assert isinstance(await decide(authorizer), Accept)
        assert isinstance(await decide(authorizer), Accept)


async def test_anonymous_questions_need_no_password(make: Make) -> None:
    """Where the directory allows them."""
    assert isinstance(await decide(make(bind_dn="", password_file="")), Accept)


@pytest.mark.parametrize("start_tls", [True, False])
async def test_a_certificate_of_another_ca_is_refused(
    make: Make, slapd: Slapd, tmp_path: Path, start_tls: bool
) -> None:
    """Before the password is sent."""
    other = write_server_files(tmp_path, owner="other")
    url = slapd.url if start_tls else slapd.url_tls
    with pytest.raises(Misconfigured, match="certificate that is not trusted"):
        await decide(make(url=url, start_tls=start_tls, ca_file=str(other.ca)))


@pytest.mark.parametrize("start_tls", [True, False])
async def test_a_certificate_for_another_name_is_refused(make: Make, slapd: Slapd, start_tls: bool) -> None:
    """The same server by a name that its certificate does not have."""
    url = (slapd.url if start_tls else slapd.url_tls).replace("127.0.0.1", "localhost")
    with pytest.raises(Misconfigured, match="not trusted: Hostname mismatch"):
        await decide(make(url=url, start_tls=start_tls, ca_file=str(slapd.tls.ca)))


async def test_a_wrong_password_needs_mending(make: Make, tmp_path: Path) -> None:
    """Asking again would not help, and might lock the account."""
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    wrong.chmod(0o600)
    with pytest.raises(Misconfigured, match="bind_dn or its password is wrong, result code 49"):
        await decide(make(password_file="wrong"))


async def test_check_tells_a_base_that_is_not_there(make: Make) -> None:
    """And is content where all is well."""
    await make().check()
    with pytest.raises(Misconfigured, match="no such entry, or bind_dn may not see it: look at base"):
        await make(base="ou=typo,dc=example,dc=com").check()


# --- trouble --------------------------------------------------------------------------------------------------------


async def test_a_server_that_was_restarted_is_asked_on_a_new_connection(make: Make, slapd: Slapd) -> None:
    """Those that were kept ended with it; nobody notices."""
    authorizer = make()
    await asyncio.gather(*(decide(authorizer) for _ in range(4)))
    slapd.stop()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await decide(authorizer)
    slapd.start()
    assert isinstance(await decide(authorizer), Accept)


@pytest.mark.parametrize("way", ["plain", "start_tls", "ldaps"])
async def test_a_server_that_stands_still_holds_up_nobody_else(make: Make, slapd: Slapd, way: str) -> None:
    """Whoever asks it gives up in time, the loop goes on meanwhile, and afterwards it answers again."""
    url = slapd.url_tls if way == "ldaps" else slapd.url
    authorizer = make(url=url, start_tls=way == "start_tls", ca_file=str(slapd.tls.ca), pool_size=1)
    await decide(authorizer)
    slapd.hold()
    try:
        for each in (authorizer, make(url=url, start_tls=way == "start_tls", ca_file=str(slapd.tls.ca))):
            asked = asyncio.create_task(each.authorize(question("SN123")))
            done, _ = await asyncio.wait({asked}, timeout=0.2)
            assert not done
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
    finally:
        slapd.release()
    assert isinstance(await decide(authorizer), Accept)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "ldap://ldap.example.com"}, "in clear: use ldaps://"),
        ({"url": "ldap://192.0.2.1"}, "in clear: use ldaps://"),
        ({"url": "ldaps://h", "start_tls": True}, "start_tls goes with ldap://"),
        ({"url": "ldaps://h/dc=example"}, "and no more"),
        ({"url": "ldaps://user@h"}, "and no more"),
        ({"url": "ldap://"}, "and no more"),
        ({"url": "ldaps://h:99999"}, "cannot be read"),
        ({"bind_dn": READER}, "bind_dn and password_file go together"),
        ({"password_file": "x"}, "bind_dn and password_file go together"),
        ({"ca_file": "missing.pem"}, "missing.pem is no file of PEM certificates"),
        ({"filter": "(cn={device.name})"}, "is no variable"),
        ({"filter": "(cn={device.value}"}, r"\"\)\" is missing"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(tmp_path: Path, options: Any, reason: str) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigurationError, match=reason):
        settings(tmp_path, **{"url": "ldaps://ldap.example.com", "base": BASE, **options})


@pytest.mark.parametrize("url", ["ldap://localhost", "ldap://127.0.0.1:389", "ldap://[::1]", "ldapi://%2Frun%2Fldapi"])
def test_this_machine_may_be_asked_in_clear(tmp_path: Path, url: str) -> None:
    """And others where the operator says so aloud."""
    assert settings(tmp_path, url=url, base=BASE).address.url == url
    assert settings(tmp_path, url="ldap://192.0.2.1", base=BASE, insecure_plaintext=True).bind_dn == ""
