"""The RADIUS authorizer against a real FreeRADIUS: yes, no, down, held, restarted, unsigned, and many at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Reject
from scep_ra.aaa.radius import RadiusAuthorizer, radius_settings
from scep_ra.errors import Unavailable
from scep_ra.identity.types import DeviceID, DeviceIDKind
from tests.support.freeradius import SECRET, FreeRadius, device_entry, running_freeradius
from tests.support.records import NOW

pytestmark = pytest.mark.interop

FLEET = 1000
DOCUMENTATION = Path(__file__).parent.parent.parent / "docs/aaa.md"
USERS = (
    device_entry("SN1")
    + device_entry(
        "SN2",
        "scep-ra:user=alice",
        "scep-ra:dns=a.example",
        "scep-ra:dns=b.example",
        "scep-ra:services=vpn wifi",
        "pki:cert-lifetime-end=20:00 Jan 05, 2027",
    )
    + 'SN3 Cleartext-Password := "cisco"\n\tReply-Message = "no PKI user"\n'
    + 'SN4 Auth-Type := Reject\n\tReply-Message = "reported stolen"\n'
    + "".join(device_entry(f"FLEET{number}", f"scep-ra:number={number}") for number in range(FLEET))
)


@pytest.fixture(scope="module")
def freeradius(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeRadius]:
    with running_freeradius(tmp_path_factory.mktemp("freeradius"), USERS) as server:
        yield server


def request(value: str = "SN1") -> AccessRequest:
    device_id = DeviceID(kind=DeviceIDKind.SERIAL, value=value)
    return AccessRequest(device_id=device_id, profile="default", source="192.0.2.7", renewal=False)


@asynccontextmanager
async def backend(
    directory: Path, *servers: FreeRadius, secret: str = SECRET, **options: Any
) -> AsyncIterator[Authorizer]:
    file = directory / "radius.secret"
    file.touch(mode=0o600)
    file.write_text(f"{secret}\n")
    table = {
        "servers": tuple(server.address for server in servers),
        "secret_file": file.name,
        "require_message_authenticator": "yes",
        "retransmit_s": 0.3,
        "tries": 2,
        "dead_s": 30.0,
        **options,
    }
    settings = radius_settings(table, data_directory=directory, timeout_s=60)
    authorizer = RadiusAuthorizer(settings, lambda: NOW)
    try:
        yield authorizer
    finally:
        await authorizer.close()


async def test_entries_decide(freeradius: FreeRadius, tmp_path: Path) -> None:
    """An entry with the permit is a yes with its attributes; one without, a refusal and no entry are a no."""
    async with backend(tmp_path, freeradius) as authorizer:
        await authorizer.check()
        assert await authorizer.authorize(request("SN1")) == Accept()
        assert await authorizer.authorize(request("SN2")) == Accept(
            attributes={"user": "alice", "dns": "a.example\nb.example"},
            services=frozenset({"vpn", "wifi"}),
            not_after=datetime.fromisoformat("2027-01-05T20:00:00Z"),
        )
        assert await authorizer.authorize(request("SN3")) == Reject(
            reason="the AAA entry lacks the Cisco-AVPair pki:cert-application=all"
        )
        assert await authorizer.authorize(request("SN4")) == Reject(
            reason="the RADIUS server said Access-Reject: 'reported stolen'"
        )
        assert await authorizer.authorize(request("SN5")) == Reject(reason="the RADIUS server said Access-Reject")


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "DEFAULT",
        "SN1\\0",
        "SN1 ",
        'SN1" OR "1"="1',
        "%{SN1}",
        "SN1/../SN1",
        "${SN1}",
        "SN1@SN1",
        "\uff33\uff2e\uff11",
        "$INCLUDE",
    ],
)
async def test_ids_with_other_signs_are_other_names(freeradius: FreeRadius, tmp_path: Path, value: str) -> None:
    """Nothing in them is a pattern, an expansion or a path to the server. Blanks around them are no part of the ID."""
    async with backend(tmp_path, freeradius) as authorizer:
        decision = await authorizer.authorize(request(value))
    assert isinstance(decision, Accept if request(value).device_id.value == "SN1" else Reject)


async def test_a_wrong_password_is_a_no(freeradius: FreeRadius, tmp_path: Path) -> None:
    """Where a site has another than the usual one."""
    async with backend(tmp_path, freeradius, password="Cisco") as authorizer:
        assert isinstance(await authorizer.authorize(request()), Reject)


async def test_a_wrong_secret_is_no_answer(freeradius: FreeRadius, tmp_path: Path) -> None:
    """The server drops what it cannot verify, so the message names the secret among the causes."""
    async with backend(tmp_path, freeradius, secret="testing124") as authorizer:
        with pytest.raises(Unavailable, match=r"no answer in 2 tries: .* by this secret"):
            await authorizer.authorize(request())


async def test_a_server_that_is_down_is_no_answer_until_it_is_back(tmp_path: Path) -> None:
    """The refused connection is told at once; the next question after the restart is answered."""
    with running_freeradius(tmp_path / "server", USERS) as server:
        async with backend(tmp_path, server, retransmit_s=8.0) as authorizer:
            assert isinstance(await authorizer.authorize(request()), Accept)
            await asyncio.to_thread(server.stop)
            with pytest.raises(Unavailable, match="Connection refused"):
                await authorizer.authorize(request())
            await asyncio.to_thread(server.start)
            assert isinstance(await authorizer.authorize(request()), Accept)


async def test_an_entry_that_is_removed_is_a_no_at_once(tmp_path: Path) -> None:
    """Nothing remembers the yes of before."""
    with running_freeradius(tmp_path / "server", USERS) as server:
        async with backend(tmp_path, server) as authorizer:
            assert isinstance(await authorizer.authorize(request()), Accept)
            await asyncio.to_thread(server.write_users, "")
            assert isinstance(await authorizer.authorize(request()), Reject)


async def test_a_server_that_is_held_answers_when_it_can(tmp_path: Path) -> None:
    """Questions sent again meanwhile are the same question to it; each gets one answer, its own."""
    with running_freeradius(tmp_path / "server", USERS) as server:
        async with backend(tmp_path, server, retransmit_s=2.0, tries=3) as authorizer:
            server.hold()
            questions = [asyncio.create_task(authorizer.authorize(request(f"FLEET{number}"))) for number in range(20)]
            # Longer than the first wait: every question has been sent twice.
            _, waiting = await asyncio.wait(questions, timeout=2.5)
            assert len(waiting) == 20
            server.release()
            decisions = await asyncio.gather(*questions)
    assert decisions == [Accept(attributes={"number": str(number)}) for number in range(20)]


async def test_late_answers_reach_nobody_else(tmp_path: Path) -> None:
    """Those who asked have given up; those who ask next get their own."""
    with running_freeradius(tmp_path / "server", USERS) as server:
        async with backend(tmp_path, server, retransmit_s=1.0, tries=1) as authorizer:
            server.hold()
            early = (authorizer.authorize(request(f"FLEET{number}")) for number in range(300))
            given_up = await asyncio.gather(*early, return_exceptions=True)
            server.release()
            late = (authorizer.authorize(request(f"FLEET{number}")) for number in range(300, 600))
            decisions = await asyncio.gather(*late)
    assert all(isinstance(each, Unavailable) for each in given_up)
    assert decisions == [Accept(attributes={"number": str(number)}) for number in range(300, 600)]


async def test_a_held_server_is_passed_over(freeradius: FreeRadius, tmp_path: Path) -> None:
    """Once; then the other is asked first."""
    with running_freeradius(tmp_path / "held", USERS) as held:
        async with backend(tmp_path, held, freeradius) as authorizer:
            held.hold()
            loop = asyncio.get_running_loop()
            started_at = loop.time()
            assert isinstance(await authorizer.authorize(request()), Accept)
            assert loop.time() - started_at > 0.3 * 0.9 * 2.9
            started_at = loop.time()
            assert isinstance(await authorizer.authorize(request()), Accept)
            assert loop.time() - started_at < 0.3


@pytest.mark.parametrize("count", [300, FLEET])
async def test_many_questions_at_a_time_get_each_its_own_answer(
    freeradius: FreeRadius, tmp_path: Path, count: int
) -> None:
    """More than there are identifiers."""
    async with backend(tmp_path, freeradius, retransmit_s=8.0) as authorizer:
        decisions = await asyncio.gather(*(authorizer.authorize(request(f"FLEET{number}")) for number in range(count)))
    assert decisions == [Accept(attributes={"number": str(number)}) for number in range(count)]


async def test_a_server_that_does_not_sign_is_believed_only_where_it_may(tmp_path: Path) -> None:
    """Debian 12's as it comes: its unsigned answers could be anybody's (BlastRADIUS), and the message says so."""
    with running_freeradius(tmp_path / "server", USERS, post_auth="") as server:
        async with backend(tmp_path, server) as authorizer:
            with pytest.raises(Unavailable, match="there is no Message-Authenticator"):
                await authorizer.authorize(request())
        async with backend(tmp_path, server, require_message_authenticator="auto") as authorizer:
            assert isinstance(await authorizer.authorize(request()), Accept)


async def test_the_recipe_in_the_documentation_works(tmp_path: Path) -> None:
    """Entry and signing are taken from docs/aaa.md as they stand there."""
    section = DOCUMENTATION.read_text().partition("\n## RADIUS\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```text\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    (entry,) = (block for block in blocks if "Cleartext-Password" in block)
    (signing,) = (block for block in blocks if block.startswith("post-auth"))
    with running_freeradius(tmp_path / "server", entry, post_auth=signing) as server:
        async with backend(tmp_path, server) as authorizer:
            decisions = [await authorizer.authorize(request(value)) for value in ("FTX1234ABCD", "FTX1234ABCE")]
    assert decisions == [
        Accept(attributes={"user": "alice", "hostname": "router1"}),
        Reject(reason="the RADIUS server said Access-Reject"),
    ]
