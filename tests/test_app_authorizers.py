"""Claims about a running server whose AAA goes away and comes back: devices lose nothing, and nobody gets a yes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from scep_ra.aaa.base import Accept, Reject
from scep_ra.aaa.registry import Parts
from scep_ra.config import Settings
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.scep.client import ClientTransaction, Failed, IssuedCertificate, StillPending
from tests.support.authorizers import Scripted
from tests.support.composition import configured, register, running
from tests.support.front import Device

YES = Accept(attributes={"CN": "router-1"})


class Switchboard(Scripted):
    """An AAA that a test can reach."""

    here: ClassVar[list[Switchboard]] = []

    def __init__(self, _parts: Parts, _options: Mapping[str, object]) -> None:
        super().__init__(answer=YES)
        Switchboard.here.append(self)


@pytest.fixture
def boards() -> Iterator[list[Switchboard]]:
    Switchboard.here.clear()
    yield Switchboard.here
    Switchboard.here.clear()


def with_board(directory: Path, **table: Any) -> Settings:
    board = {"type": f"{__name__}:Switchboard", "breaker_reset_s": 0.001, **table}
    return configured(directory, aaa={"board": board}, profile={"default": {"authorizer": "board"}})


async def enroll(device: Device, transaction: ClientTransaction, challenge: str) -> Any:
    return await device.ask(transaction, transaction.enroll(device.csr(challenge)))


@pytest.mark.parametrize("silence", [Unavailable("no route"), Misconfigured("wrong secret"), ValueError("a bug"), None])
async def test_a_request_outlives_an_aaa_that_is_away(
    tmp_path: Path, boards: list[Switchboard], silence: BaseException | None
) -> None:
    """However it is away: the device waits, and gets its certificate by asking again."""
    async with running(with_board(tmp_path, timeout_s=0.1)) as (server, site):
        device = Device(site=site)
        challenge = await register(server.parts.store)
        (board,) = boards
        board.answer = silence
        transaction = await device.transaction()
        assert isinstance(await enroll(device, transaction, challenge), StillPending)
        assert isinstance(await device.ask(transaction, transaction.poll()), StillPending)
        board.answer = YES
        answer = await device.ask(transaction, transaction.poll())
        assert isinstance(answer, IssuedCertificate)


async def test_a_certificate_is_not_sent_again_before_aaa_is_back(tmp_path: Path, boards: list[Switchboard]) -> None:
    """Nor is the device told that it failed; but a no is a no."""
    async with running(with_board(tmp_path)) as (server, site):
        device = Device(site=site)
        challenge = await register(server.parts.store)
        (board,) = boards
        transaction = await device.transaction()
        request = transaction.enroll(device.csr(challenge))
        issued = await device.ask(transaction, request)
        assert isinstance(issued, IssuedCertificate)
        for answer, kind in (
            (Unavailable("no route"), StillPending),
            (YES, IssuedCertificate),
            (Reject(reason="gone"), Failed),
        ):
            board.answer = answer
            again = await device.transaction()
            assert isinstance(await device.ask(again, again.enroll(device.csr(challenge))), kind)


async def test_where_devices_are_to_come_again_nothing_is_kept(tmp_path: Path, boards: list[Switchboard]) -> None:
    """HTTP 503, and the challenge is still good."""
    async with running(with_board(tmp_path, on_error="unavailable")) as (server, site):
        device = Device(site=site)
        challenge = await register(server.parts.store)
        (board,) = boards
        board.answer = Unavailable("no route")
        transaction = await device.transaction()
        refused = await device.send(transaction.enroll(device.csr(challenge)))
        assert (refused.status, "Retry-After" in refused.headers) == (503, True)
        assert not await server.parts.store.list_enrollments(frozenset(EnrollmentState))
        board.answer = YES
        assert isinstance(await device.enroll(challenge), IssuedCertificate)


async def test_readiness_tells_which_authorizer_cannot_answer(tmp_path: Path, boards: list[Switchboard]) -> None:
    """By its name in the configuration."""
    async with running(with_board(tmp_path)) as (server, site):
        (board,) = boards
        board.answer = Unavailable("no route")
        await server.check()
        answer = await site.get("/readyz")
        assert answer.status == 503
        assert b'{"check": "aaa.board", ' in answer.body
        assert b"no route" not in answer.body
