"""Claims about SCEP in HTTP (RFC 8894 4.1): the spellings of real clients, and what is no call at all."""

from __future__ import annotations

import base64
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scep_ra.scep.errors import MalformedMessage, MessageTooLarge, MethodNotAllowed, TransportError, UnknownOperation
from scep_ra.scep.http_binding import HTTPRequest, ScepCall, decode_get_message, encode_call, parse_call
from scep_ra.scep.terms import Operation
from tests.support import vectors

LIMIT = 65536
# An octet string that begins as a SEQUENCE and whose base64 has `+`, `/` and two `=`.
MESSAGE = b"\x30\xfb\xef\xbe\xff\xff\xff" * 40
TEXT = base64.b64encode(MESSAGE).decode()
LINES = [TEXT[start : start + 64] for start in range(0, len(TEXT), 64)]
assert {"+", "/"} < set(TEXT)
assert TEXT.endswith("=")


def get(query: str, *, path: str = "/scep") -> ScepCall:
    return parse_call("GET", f"{path}?{query}", b"", max_message_bytes=LIMIT)


def post(body: bytes, query: str = "operation=PKIOperation") -> ScepCall:
    return parse_call("POST", f"/scep?{query}", body, max_message_bytes=LIMIT)


# --- GET: the message ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(quote(TEXT, safe=""), id="E-01 all escaped"),
        pytest.param(TEXT, id="E-02 raw + / ="),
        pytest.param(TEXT.replace("=", "%3D"), id="E-03 only = escaped"),
        pytest.param(TEXT.replace("+", "%20"), id="E-04 + became a blank"),
        pytest.param(quote("\n".join(LINES) + "\n", safe="/"), id="E-05 64 columns, %0A"),
        pytest.param(quote("\r\n".join(LINES) + "\r\n", safe=""), id="E-06 %0D%0A"),
        pytest.param(TEXT.replace("+", "-").replace("/", "_"), id="E-07 base64url"),
        pytest.param(TEXT.rstrip("="), id="E-08 no padding"),
        pytest.param(quote(quote(TEXT, safe=""), safe=""), id="E-09 escaped twice"),
        pytest.param(TEXT.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"), id="E-11 lower case"),
        pytest.param(quote(TEXT.replace("=", "\t="), safe=""), id="tabs"),
    ],
)
def test_every_spelling_of_base64_gives_the_message(message: str) -> None:
    """E-01 to E-09 and E-11: what clients and proxies make of RFC 8894 4.1."""
    assert get(f"operation=PKIOperation&message={message}").message == MESSAGE


@pytest.mark.parametrize(
    "query",
    [
        "message={}&operation=PKIOperation",
        "operation=PKIOperation&message={}&extra=1&also",
        "MESSAGE={}&Operation=pkioperation",
        "operation=PKIOperation&&message={}#fragment",
        "x=%3F?&operation=PKIOperation&message={}",
        "operation=%20PKIOperation&message={}",
    ],
)
def test_the_query_may_be_in_any_order_and_hold_more(query: str) -> None:
    """E-10, E-16, HTTP-4, HTTP-6: message first (scepclient), unknown keys, another case, blanks."""
    assert get(query.format(quote(TEXT, safe=""))) == ScepCall(operation=Operation.PKI_OPERATION, message=MESSAGE)


@pytest.mark.parametrize("path", ["", "/", "/scep", "/cgi-bin/pkiclient.exe", "http://host:80/scep", "/a%3Fb"])
def test_the_path_does_not_matter(path: str) -> None:
    """HTTP-5: the first question mark begins the query, wherever the client was pointed at."""
    assert get("operation=GetCACaps", path=path).operation is Operation.GET_CA_CAPS


@pytest.mark.parametrize(
    ("pattern", "query"),
    [
        ("not base64", "operation=PKIOperation&message=MIIB*AAA"),
        ("not base64", "operation=PKIOperation&message=MII%00"),
        ("not base64", "operation=PKIOperation&message=M%C3%A9"),
        ("not base64", "operation=PKIOperation&message=MA==MA=="),
        ("length is impossible", "operation=PKIOperation&message=MAAAA"),
        ("not base64", "operation=PKIOperation&message="),
        ("not base64", "operation=PKIOperation&message=%3D%3D"),
        ("with 0 messages", "operation=PKIOperation"),
        ("with 2 messages", "operation=PKIOperation&message=MAA=&message=MAA="),
        ("not an ASN.1 SEQUENCE", "operation=PKIOperation&message=cmFuZG9t"),
    ],
)
def test_what_is_no_message_is_malformed(pattern: str, query: str) -> None:
    """E-12 to E-15, E-17: an illegal character, an impossible length, nothing, two, other octets: HTTP 400."""
    with pytest.raises(MalformedMessage, match=pattern) as caught:
        get(query)
    assert caught.value.http_status == 400


def test_messages_up_to_the_limit_pass_and_longer_ones_are_413() -> None:
    """H-19: measured after decoding; and a parameter that cannot decode to less is not even decoded."""
    message = b"\x30" * 300
    text = quote(base64.b64encode(message), safe="").encode()
    assert decode_get_message(text, 300) == message
    for raw, limit in [(text, 299), (b"*" * 1201, 300)]:
        with pytest.raises(MessageTooLarge) as caught:
            decode_get_message(raw, limit)
        assert caught.value.http_status == 413


def test_everything_escaped_still_fits_the_first_bound() -> None:
    """Every octet of base64 as three: 4/3 times 3 is the 4 that is allowed for."""
    message = b"\x30" * 300
    text = "".join(f"%{octet:02X}" for octet in base64.b64encode(message)).encode()
    assert decode_get_message(text, 300) == message


# --- GET: the operation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", list(Operation))
def test_operations_have_no_case(operation: Operation) -> None:
    """H-04: the input is lenient, the table is closed."""
    for name in (str(operation), operation.lower(), operation.upper()):
        assert get(f"operation={name}&message={quote(TEXT)}").operation is operation


@pytest.mark.parametrize(
    ("query", "identifier"),
    [
        ("operation=GetCACert", b""),
        ("operation=GetCACert&message=", b""),
        ("operation=GetCACert&message=CAIdentifier", b"CAIdentifier"),
        ("operation=GetCACaps&message=0", b"0"),
        ("operation=GetNextCACert&message=a*b", b"a*b"),
        ("operation=GetCACert&message=a&message=b", b"a"),
    ],
)
def test_a_ca_identifier_is_taken_as_it_comes(query: str, identifier: bytes) -> None:
    """H-02, HTTP-7: nothing in it may fail a GetCACert."""
    assert get(query).message == identifier


@pytest.mark.parametrize(
    "query",
    ["", "message=MAA=", "operation=", "operation=Foo", "operation=GetCACaps&operation=GetCACert", "operation=%FF"],
)
def test_a_get_without_one_known_operation_is_400(query: str) -> None:
    """H-05, H-06."""
    with pytest.raises(UnknownOperation) as caught:
        get(query)
    assert caught.value.http_status == 400


def test_head_is_read_like_get() -> None:
    """H-08; who serves it leaves the body away."""
    call = parse_call("HEAD", "/?operation=GetCACert", b"", max_message_bytes=LIMIT)
    assert call == ScepCall(operation=Operation.GET_CA_CERT)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_405(method: str) -> None:
    """H-07: methods have a case (RFC 9110 9.1)."""
    with pytest.raises(MethodNotAllowed) as caught:
        parse_call(method, "/?operation=GetCACert", b"", max_message_bytes=LIMIT)
    assert caught.value.http_status == 405


# --- POST ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["operation=PKIOperation", "operation=pkioperation&message=ignored", "", "x=y"])
def test_a_post_is_a_pki_operation_with_the_body_as_it_is(query: str) -> None:
    """H-12, HTTP-6: it can be nothing else (RFC 8894 4.3)."""
    assert post(MESSAGE, query) == ScepCall(operation=Operation.PKI_OPERATION, message=MESSAGE)


@pytest.mark.parametrize("operation", ["GetCACaps", "GetCACert", "GetNextCACert"])
def test_the_other_operations_are_no_post(operation: str) -> None:
    """H-03, HTTP-8."""
    with pytest.raises(MethodNotAllowed, match=f"{operation} is a GET"):
        post(b"", f"operation={operation}")


def test_a_post_with_an_unknown_operation_is_400() -> None:
    """Leniency ends at words that mean something else."""
    with pytest.raises(UnknownOperation):
        post(MESSAGE, "operation=Revoke")


@pytest.mark.parametrize(
    "body",
    [
        TEXT.encode(),
        "\n".join(LINES).encode() + b"\n",
        b"-----BEGIN PKCS7-----\n" + "\n".join(LINES).encode() + b"\n-----END PKCS7-----\n",
        b"\r\n-----BEGIN CMS-----\r\n" + "\r\n".join(LINES).encode() + b"\r\n-----END CMS-----",
    ],
    ids=["base64", "lines", "PEM", "PEM with CRLF"],
)
def test_text_bodies_are_decoded_only_because_they_cannot_be_der(body: bytes) -> None:
    """Section 4 of the protocol says binary; scripts post PEM."""
    assert post(body).message == MESSAGE


@pytest.mark.parametrize(
    "body", [b"", b"\x00\x01", b"hello world!", b"-----BEGIN PKCS7-----\nMII*\n-----END PKCS7-----", b"\x31\x00"]
)
def test_a_body_that_is_no_message_is_400(body: bytes) -> None:
    """H-20."""
    with pytest.raises(MalformedMessage):
        post(body)


def test_a_body_beyond_the_limit_is_413() -> None:
    """H-17, as DER and as text."""
    assert len(post(b"\x30" * LIMIT).message) == LIMIT
    for body in (b"\x30" * (LIMIT + 1), base64.b64encode(b"\x30" * (LIMIT + 1))):
        with pytest.raises(MessageTooLarge):
            post(body)


# --- captured ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", vectors.CAPTURED_REQUESTS)
def test_requests_of_real_clients_are_read(name: str) -> None:
    """P-34: sscep, scepclient and strongSwan by GET and POST, against an independent decoder."""
    head, _, body = vectors.read(name).partition(b"\r\n\r\n")
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    call = parse_call(method, target, body, max_message_bytes=LIMIT)
    assert call == ScepCall(operation=Operation.PKI_OPERATION, message=vectors.message(name))


# --- the client's side ---------------------------------------------------------------------------------------------


def test_calls_are_written_by_the_book() -> None:
    """RFC 8894 4.1: standard base64 with all three reserved characters escaped; POST carries the message raw."""
    call = ScepCall(operation=Operation.PKI_OPERATION, message=MESSAGE)
    url = "http://ra/scep?operation=PKIOperation"
    assert encode_call(call, "http://ra/scep", post=True) == HTTPRequest(
        method="POST", url=url, body=MESSAGE, content_type="application/x-pki-message"
    )
    by_get = encode_call(call, "http://ra/scep", post=False)
    assert by_get == HTTPRequest(method="GET", url=f"{url}&message={quote(TEXT, safe='')}")


@pytest.mark.parametrize("post_", [True, False])
def test_the_other_operations_are_always_a_get(post_: bool) -> None:
    """With the CA identifier only where there is one, and behind a query that is there already."""
    caps = ScepCall(operation=Operation.GET_CA_CAPS)
    assert encode_call(caps, "http://ra/s", post=post_).url == "http://ra/s?operation=GetCACaps"
    cert = ScepCall(operation=Operation.GET_CA_CERT, message=b"my CA")
    request = encode_call(cert, "http://ra/s?x=1", post=post_)
    assert request == HTTPRequest(method="GET", url="http://ra/s?x=1&operation=GetCACert&message=my%20CA")


@given(st.binary(max_size=200), st.booleans())
def test_a_call_survives_its_way_over_http(rest: bytes, post_: bool) -> None:
    """What encode_call writes, parse_call reads."""
    call = ScepCall(operation=Operation.PKI_OPERATION, message=b"\x30" + rest)
    request = encode_call(call, "http://ra/scep", post=post_)
    assert parse_call(request.method, request.url, request.body or b"", max_message_bytes=LIMIT) == call


# --- hostile -------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    st.binary(max_size=60).map(lambda octets: octets.decode("utf-8", "surrogateescape")),
    st.binary(max_size=60),
)
@example("GET", "/?operation=PKIOperation&message=\udcff", b"")
@example("GET", "/?operation=\udcff%FF", b"")
def test_only_transport_errors_leave_the_parser(method: str, target: str, body: bytes) -> None:
    """Whatever comes over the wire, as the HTTP library hands it on."""
    with suppress(TransportError):
        parse_call(method, target, body, max_message_bytes=LIMIT)
    with suppress(TransportError):
        parse_call(method, f"/?operation=PKIOperation&message={target}", body, max_message_bytes=LIMIT)
