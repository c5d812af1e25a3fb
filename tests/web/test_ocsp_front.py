"""Claims about OCSP over HTTP: ways to ask (RFC 6960 A.1), what caches are told, which refusal stands for what."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.x509 import ocsp
from structlog.testing import capture_logs
from yarl import URL

from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.pki.errors import MalformedData
from scep_ra.revocation.responder import Answer, ForeignIssuer
from scep_ra.web.ocsp import ocsp_routes, ocsp_url
from tests.support.pki import NOW

Asker = TestClient[web.Request, web.Application]

PATH = "/ocsp/default"
# Of this request base64 has all that URLs treat in a special way: "MAn//vv/+v8+/z8=".
REQUEST = b"\x30\x09\xff\xfe\xfb\xff\xfa\xff\x3e\xff\x3f"
BASE64 = base64.b64encode(REQUEST).decode()


class Scripted:
    """Give the answer or the error that the test wants, and remember what was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answers = Answer(der=b"answer", this_update=NOW, has_nonce=False)
        self.error: Exception | None = None

    async def answer(self, octets: bytes) -> Answer:
        self.asked.append(octets)
        if self.error is not None:
            raise self.error
        return self.answers


@pytest.fixture
def source() -> Scripted:
    return Scripted()


@pytest.fixture
async def client(source: Scripted) -> AsyncIterator[Asker]:
    app = web.Application()
    app.add_routes(ocsp_routes({"default": source}))
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        yield client


def refusal(octets: bytes) -> str:
    return ocsp.load_der_ocsp_response(octets).response_status.name


# --- ways to ask ---------------------------------------------------------------------------------------------------


async def test_it_is_asked_by_post_under_the_url_that_certificates_name(client: Asker, source: Scripted) -> None:
    """RFC 6960 A.1, whatever Content-Type a client sends, and the media type of A.2."""
    path = ocsp_url("http://ra.example/", "default").removeprefix("http://ra.example")
    async with client.post(path, data=REQUEST) as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (
            200,
            "application/ocsp-response",
            b"answer",
        )
        assert answer.headers["Cache-Control"] == "no-store"
    assert source.asked == [REQUEST]


@pytest.mark.parametrize(
    "text",
    [
        quote(BASE64, safe=""),
        BASE64,
        BASE64.replace("/", "%2F"),
        BASE64.replace("/", "%2f"),
        BASE64.replace("+", "%2B"),
        BASE64.replace("+", "%20"),
        BASE64.rstrip("="),
        f"/{BASE64}",
        quote(quote(BASE64, safe=""), safe=""),
        base64.urlsafe_b64encode(REQUEST).decode(),
    ],
    ids=["escaped", "raw", "2F", "2f", "2B", "blank", "unpadded", "one slash more", "escaped twice", "url-safe"],
)
async def test_it_is_asked_by_get_however_the_base64_is_escaped(client: Asker, source: Scripted, text: str) -> None:
    """RFC 6960 A.1 wants it escaped; not every client does, and proxies do it again or undo it."""
    async with client.session.get(URL(f"{client.make_url(PATH)}/{text}", encoded=True)) as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (
            200,
            "application/ocsp-response",
            b"answer",
        )
    assert source.asked == [REQUEST]


@pytest.mark.parametrize("path", ["/ocsp/other", "/ocsp/..%2Fdefault"])
async def test_other_cas_are_not_found(client: Asker, source: Scripted, path: str) -> None:
    """Names are looked up and never become paths."""
    async with client.post(path, data=REQUEST) as post, client.get(f"{path}/{BASE64}") as fetched:
        assert (post.status, fetched.status) == (404, 404)
    assert source.asked == []


async def test_there_is_nothing_to_see_without_a_request(client: Asker) -> None:
    """A browser that opens the URL."""
    async with client.get(PATH) as answer:
        assert answer.status == 405


# --- caches --------------------------------------------------------------------------------------------------------


async def test_caches_may_keep_what_was_asked_by_get_and_have_to_ask_each_time(client: Asker) -> None:
    """So that they never hide a revocation (RFC 5019 6.2 has the headers, and would let them for a while)."""
    async with client.get(f"{PATH}/{quote(BASE64, safe='')}") as answer:
        assert answer.headers["Cache-Control"] == "max-age=0, public, no-transform, must-revalidate"
        assert parsedate_to_datetime(answer.headers["Last-Modified"]) == NOW
        tag = answer.headers["ETag"]
    async with client.get(f"{PATH}/{quote(BASE64, safe='')}", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", tag)


async def test_a_cache_that_has_another_answer_gets_the_new_one(client: Asker, source: Scripted) -> None:
    """The tag is of the answer's octets."""
    async with client.get(f"{PATH}/{quote(BASE64, safe='')}") as answer:
        tag = answer.headers["ETag"]
    source.answers = Answer(der=b"revoked", this_update=NOW, has_nonce=False)
    async with client.get(f"{PATH}/{quote(BASE64, safe='')}", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (200, b"revoked")


async def test_an_answer_with_a_nonce_is_for_nobody_else(client: Asker, source: Scripted) -> None:
    """No cache keeps it."""
    source.answers = Answer(der=b"answer", this_update=NOW, has_nonce=True)
    async with client.get(f"{PATH}/{quote(BASE64, safe='')}") as answer:
        assert (answer.headers["Cache-Control"], "ETag" in answer.headers) == ("no-store", False)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "level"),
    [
        (MalformedData("an element is missing"), "MALFORMED_REQUEST", "info"),
        (ForeignIssuer("no certificate of ours"), "UNAUTHORIZED", "info"),
        (Unavailable("the disk is full"), "TRY_LATER", "warning"),
        (Misconfigured("the token is not there"), "INTERNAL_ERROR", "warning"),
    ],
)
async def test_each_error_has_its_refusal(
    client: Asker, source: Scripted, error: Exception, status: str, level: str
) -> None:
    """With HTTP status 200, where OCSP clients look for it, kept by no cache; the reason stays in the log."""
    source.error = error
    with capture_logs() as log:
        async with client.get(f"{PATH}/{quote(BASE64, safe='')}") as answer:
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
            assert refusal(await answer.read()) == status
    (line,) = log
    assert (line["log_level"], line["event"], line["ca"]) == (level, "ocsp_refused", "default")
    assert (line["status"], line["reason"]) == (status.lower(), str(error))


async def test_a_bug_is_an_internal_error_and_leaves_a_trace(client: Asker, source: Scripted) -> None:
    """In the log, not in the answer."""
    source.error = ZeroDivisionError("a bug")
    with capture_logs() as log:
        async with client.post(PATH, data=REQUEST) as answer:
            assert (answer.status, refusal(await answer.read())) == (200, "INTERNAL_ERROR")
    assert [(line["log_level"], line["event"], line["exc_info"]) for line in log] == [("error", "ocsp_failed", True)]


@pytest.mark.parametrize("text", ["!!!", "AAAA", "M", "favicon.ico"])
async def test_what_is_no_request_is_malformed(client: Asker, source: Scripted, text: str) -> None:
    """Before anybody is asked: no base64, no SEQUENCE."""
    async with client.get(f"{PATH}/{text}") as answer:
        assert (answer.status, refusal(await answer.read())) == (200, "MALFORMED_REQUEST")
    assert source.asked == []


# --- how often -----------------------------------------------------------------------------------------------------


async def test_who_asks_too_often_is_told_to_try_later(source: Scripted) -> None:
    """With nonces each answer costs a signature; POST and GET count alike."""
    app = web.Application()
    app.add_routes(ocsp_routes({"default": source}, max_requests_per_address_per_s=0.001))
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        for _ in range(10):
            async with client.post(PATH, data=REQUEST) as answer:
                assert await answer.read() == b"answer"
        async with client.get(URL(f"{PATH}/{quote(BASE64, safe='')}", encoded=True)) as answer:
            assert refusal(await answer.read()) == "TRY_LATER"
    assert len(source.asked) == 10
