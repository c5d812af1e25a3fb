"""Claims about the HTTP API: who gets in, what is handed on, and what comes back."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from scep_ra.errors import Unavailable
from scep_ra.headend.access import Deny, Permit
from scep_ra.headend.disconnect import Delivery, DisconnectReport
from scep_ra.headend.sync import DeletionCap, TooManyDeletions
from scep_ra.identity.types import DeviceID, parse_device_id
from scep_ra.storage.sessions import Disconnection, EntryChange, MessageKind, OutboxMessage
from scep_ra.web.api import Api
from scep_ra.web.api_clients import ApiClient, ApiClients, Scope
from tests.support.openapi import DESCRIPTION, check, check_answer, resolve
from tests.support.records import NOW, device_id

AUTHORIZE: Final = "/api/v1/authorize"
DISCONNECT: Final = "/api/v1/disconnect"
DELETED: Final = "/api/v1/aaa/deleted"
CAP: Final = DeletionCap(number=3, percent=0)
PERMIT: Final = Permit(
    device_id=parse_device_id("serial:SN1"),
    ca="default",
    certificate_serial=0xABC,
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    profile="vpn",
    attributes={"user": "alice"},
)
Peer = TestClient[web.Request, web.Application]


def report_about(device: DeviceID) -> DisconnectReport:
    message = OutboxMessage(
        message_id="0" * 32,
        kind=MessageKind.DISCONNECT,
        target="hq",
        payload={},
        device_id=device,
        created_at=NOW,
        due_at=NOW,
        settled_at=NOW,
        result="ack",
    )
    changes = Disconnection(
        device_id=device,
        entry_changed=True,
        challenges_voided=1,
        requests_rejected=2,
        revoked=(("default", 0xABC),),
        messages=(message,),
    )
    return DisconnectReport(
        changes=changes, crls={"default": 7}, deliveries=[Delivery(message=message)], elapsed_ms=12.34
    )


@dataclass
class Behind:
    """Everything that the API hands requests to, and what it was handed."""

    answer: Permit | Deny | Exception = PERMIT
    error: Exception | None = None
    known: dict[str, DeviceID] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    cut_off: list[tuple[DeviceID, EntryChange, str]] = field(default_factory=list)
    reported: list[tuple[Sequence[DeviceID], DeletionCap, str]] = field(default_factory=list)

    @property
    def is_untouched(self) -> bool:
        return not (self.asked or self.cut_off or self.reported)

    async def decide(self, user_name: str, **circumstances: Any) -> Permit | Deny:
        self.asked.append({"user_name": user_name, **circumstances})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def identify(self, user_name: str) -> DeviceID | None:
        return self.known.get(user_name)

    async def disconnect(self, device: DeviceID, *, entry: EntryChange, by: str) -> DisconnectReport:
        if self.error is not None:
            raise self.error
        self.cut_off.append((device, entry, by))
        return report_about(device)

    async def carry_out(
        self, devices: Sequence[DeviceID], cap: DeletionCap, *, reporter: str
    ) -> Sequence[DisconnectReport]:
        if self.error is not None:
            raise self.error
        self.reported.append((devices, cap, reporter))
        return [report_about(device) for device in devices]


def client(name: str, *scopes: Scope, **options: Any) -> ApiClient:
    digest = hashlib.sha256(f"token of {name}".encode()).digest()
    return ApiClient(name=name, token_digest=digest, scopes=frozenset(scopes), **options)


def token(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer token of {name}"}


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
async def peer(behind: Behind) -> AsyncIterator[Peer]:
    clients = ApiClients(
        [
            client("all", *Scope, deletions=CAP),
            client("vpn", Scope.AUTHORIZE, profile="vpn", trustpoint="RA-TP"),
            client("ldap", Scope.DEVICES),
        ]
    )
    app = web.Application()
    app.add_routes(Api(clients=clients, engine=behind, disconnects=behind, deletions=behind).routes())
    async with TestClient(TestServer(app, host="127.0.0.1")) as opened:
        yield opened


async def post(peer: Peer, path: str, document: object, *, name: str = "all", **options: Any) -> tuple[int, Any]:
    """Send JSON and return status and JSON, which are as described."""
    async with peer.post(path, json=document, headers=token(name), **options) as response:
        body = await response.json()
        check_answer(path, response.status, body)
        return response.status, body


# --- whether a device may connect ----------------------------------------------------------------------------------


async def test_a_headend_hears_that_a_device_may_connect(peer: Peer, behind: Behind) -> None:
    """Everything that it has said is asked; of the client, its name in the configuration."""
    document = {"device": "SN1", "profile": "vpn", "certificate_serial": "0abc"}
    status, body = await post(peer, AUTHORIZE, document)
    assert (status, body["certificate_serial"], body["attributes"]) == (200, "abc", {"user": "alice"})
    assert behind.asked == [
        {
            "user_name": "SN1",
            "headend": "api:all",
            "source": "127.0.0.1",
            "profile": "vpn",
            "certificate_serial": 0xABC,
        }
    ]


async def test_a_form_does_as_well(peer: Peer) -> None:
    """For scripts of a headend with curl."""
    async with peer.post(AUTHORIZE, data={"device": "SN1"}, headers=token("all")) as response:
        assert (response.status, response.content_type) == (200, "application/json")


async def test_freeradius_hears_it_in_its_own_form(peer: Peer, behind: Behind) -> None:
    """With the profile and the trustpoint of its table, whatever it says."""
    document = {"User-Name": {"type": "string", "value": ["SN1"]}}
    status, body = await post(peer, AUTHORIZE, document, name="vpn")
    assert status == 200
    assert body["reply:Cisco-AVPair"]["value"][1] == "pki:cert-trustpoint=RA-TP"
    assert (behind.asked[0]["profile"], behind.asked[0]["certificate_serial"]) == ("vpn", None)


async def test_the_profile_of_the_table_beats_the_clients_word(peer: Peer, behind: Behind) -> None:
    """A headend of one service cannot ask about another's certificates."""
    await post(peer, AUTHORIZE, {"device": "SN1", "profile": "other"}, name="vpn")
    assert behind.asked[0]["profile"] == "vpn"


async def test_a_no_is_401_and_does_not_say_why(peer: Peer, behind: Behind) -> None:
    """The status that rlm_rest takes for a reject; RFC 9110 15.5.2 wants the header."""
    behind.answer = Deny(reason="stolen on Tuesday")
    async with peer.post(AUTHORIZE, json={"device": "SN1"}, headers=token("all")) as response:
        text = await response.text()
        assert (response.status, (await response.json())["error"]["code"]) == (401, "rejected")
        assert response.headers["WWW-Authenticate"].startswith("Basic ")
    assert "Tuesday" not in text


async def test_no_answer_is_neither_yes_nor_no(peer: Peer, behind: Behind) -> None:
    """503 with Retry-After; the reason is in the log."""
    behind.answer = Unavailable("no route to 192.0.2.10")
    with capture_logs() as log:
        async with peer.post(AUTHORIZE, json={"device": "SN1"}, headers=token("all")) as response:
            body = await response.json()
            check_answer(AUTHORIZE, response.status, body)
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert "192.0.2.10" not in str(body)
    assert [line["reason"] for line in log if line["event"] == "backend_failed"] == ["no route to 192.0.2.10"]


# --- cutting off ---------------------------------------------------------------------------------------------------


async def test_a_device_is_cut_off_and_the_report_says_what_that_did(peer: Peer, behind: Behind) -> None:
    """In the name of the client, for the audit log."""
    status, body = await post(peer, DISCONNECT, {"device": "serial:SN1", "entry": "remove"})
    assert behind.cut_off == [(device_id("SN1"), EntryChange.REMOVE, "api:all")]
    assert status == 200
    assert body == {
        "device": "serial:SN1",
        "entry_changed": True,
        "challenges_voided": 1,
        "requests_rejected": 2,
        "certificates_revoked": [{"ca": "default", "certificate_serial": "abc"}],
        "crls": {"default": 7},
        "messages": [{"kind": "disconnect", "target": "hq", "result": "ack", "settled": True}],
        "elapsed_ms": 12.3,
    }


async def test_reported_deletions_are_carried_out_within_the_clients_cap(peer: Peer, behind: Behind) -> None:
    """All of one report together."""
    status, body = await post(peer, DELETED, {"devices": ["serial:SN1", "serial:SN2"]})
    assert behind.reported == [((device_id("SN1"), device_id("SN2")), CAP, "api:all")]
    assert (status, [each["device"] for each in body["disconnected"]]) == (200, ["serial:SN1", "serial:SN2"])


async def test_a_mass_of_deletions_is_a_conflict(peer: Peer, behind: Behind) -> None:
    """With words for whoever runs the AAA system."""
    behind.error = TooManyDeletions("nothing was done")
    status, body = await post(peer, DELETED, {"devices": ["SN1"]})
    assert (status, body["error"]) == (409, {"code": "too_many_deletions", "message": "nothing was done"})


@pytest.mark.parametrize(
    ("path", "document"),
    [(AUTHORIZE, {}), (DISCONNECT, {"device": "serial:"}), (DELETED, {"devices": []}), (DELETED, ["SN1"])],
)
async def test_a_body_that_means_nothing_is_told_so(peer: Peer, path: str, document: object) -> None:
    """Nothing was done."""
    status, body = await post(peer, path, document)
    assert (status, body["error"]["code"]) == (400, "bad_request")


async def test_a_bug_has_a_number_and_no_words(peer: Peer, behind: Behind) -> None:
    """The log has both."""
    behind.error = RuntimeError("secret detail")
    with capture_logs() as log:
        async with peer.post(DISCONNECT, json={"device": "SN1"}, headers=token("all")) as response:
            body = await response.json()
            assert response.status == 500
    check(body, {"$ref": "#/components/schemas/Error"})
    (line,) = [line for line in log if line["event"] == "internal_error"]
    assert body["error"]["message"] == f"internal error, incident {line['incident']}"


# --- who gets in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [AUTHORIZE, DISCONNECT, DELETED])
@pytest.mark.parametrize("header", [None, "Bearer guess", f"Basic {base64.b64encode(b'all:guess').decode()}"])
async def test_strangers_are_told_nothing(peer: Peer, behind: Behind, path: str, header: str | None) -> None:
    """Not even whether the body is one; a security event has the address, and no token."""
    headers = {} if header is None else {"Authorization": header}
    with capture_logs() as log:
        async with peer.post(path, data=b"\xff", headers=headers) as response:
            body = await response.json()
            check_answer(path, response.status, body)
            assert (response.status, body["error"]["code"]) == (401, "unauthenticated")
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
    (event,) = [line for line in log if line["event"] == "api_refused"]
    assert (event["source"], event["path"]) == ("127.0.0.1", path)
    assert "guess" not in str(log)
    assert behind.is_untouched


@pytest.mark.parametrize(
    ("name", "path"), [("vpn", DISCONNECT), ("vpn", DELETED), ("ldap", AUTHORIZE), ("ldap", DISCONNECT)]
)
async def test_a_client_may_do_what_its_scopes_say(peer: Peer, behind: Behind, name: str, path: str) -> None:
    """A headend that was broken into cuts nobody off."""
    with capture_logs() as log:
        status, body = await post(peer, path, {"device": "SN1", "devices": ["SN1"]}, name=name)
    assert (status, body["error"]["code"]) == (403, "forbidden")
    assert [line["reason"] for line in log if line["event"] == "api_refused"] == [body["error"]["message"]]
    assert behind.is_untouched


async def test_nothing_else_is_there(peer: Peer) -> None:
    """In JSON all the same; a path that is there says which method."""
    async with peer.get(AUTHORIZE, headers=token("all")) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        check(await response.json(), {"$ref": "#/components/schemas/Error"})
    for path in ("/api/v1/", "/api/v2/authorize", "/api/v1/authorize/", "/api/"):
        async with peer.post(path, headers=token("all")) as response:
            assert response.status == 404
            check(await response.json(), {"$ref": "#/components/schemas/Error"})


async def test_no_page_of_another_site_may_use_it(peer: Peer) -> None:
    """No CORS header is ever sent."""
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with peer.options(DISCONNECT, headers=headers) as response:
        assert response.status == 405
        assert not [name for name in response.headers if name.startswith("Access-Control")]


# --- the description -----------------------------------------------------------------------------------------------


async def test_the_description_is_served_to_anybody(peer: Peer) -> None:
    """It holds no secret."""
    async with peer.get("/api/v1/openapi.json") as response:
        assert await response.json() == DESCRIPTION


def test_the_description_names_every_route(behind: Behind) -> None:
    """And none that is not there."""
    api = Api(clients=ApiClients([]), engine=behind, disconnects=behind, deletions=behind)
    routes = {(each.path, each.method.lower()) for each in api.routes() if each.method != "*"}
    described = {(path, method) for path, methods in DESCRIPTION["paths"].items() for method in methods}
    assert described == routes


def test_every_reference_of_the_description_leads_somewhere() -> None:
    """Tools that read it stop at the first that does not."""

    def references(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict) and "$ref" in node:
            yield node
        for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from references(each)

    assert all(resolve(each) for each in references(DESCRIPTION))


@pytest.mark.parametrize(
    ("path", "document"),
    [(DISCONNECT, {"device": "490154203237518"}), (DELETED, {"devices": ["serial:SN1", "490154203237518"]})],
)
async def test_a_bare_name_that_another_kind_of_device_has_is_refused(
    peer: Peer, behind: Behind, path: str, document: dict[str, Any]
) -> None:
    """Whoever reports a lost phone must not hear that all is well while imei:X goes on and serial:X is nobody."""
    behind.known["490154203237518"] = parse_device_id("imei:490154203237518")
    status, body = await post(peer, path, document)
    assert (status, body["error"]["code"]) == (400, "bad_request")
    assert body["error"]["message"].endswith("of imei:490154203237518: send one of these")
    assert behind.is_untouched


@pytest.mark.parametrize("known", [None, "serial:490154203237518"])
async def test_a_bare_name_means_what_it_means_everywhere(peer: Peer, behind: Behind, known: str | None) -> None:
    """And with its kind nobody looks for others."""
    if known is not None:
        behind.known["490154203237518"] = parse_device_id(known)
    behind.known["serial:490154203237518"] = parse_device_id("imei:490154203237518")
    for name in ("490154203237518", "serial:490154203237518"):
        assert (await post(peer, DISCONNECT, {"device": name}))[0] == 200
    assert [str(each[0]) for each in behind.cut_off] == ["serial:490154203237518"] * 2
