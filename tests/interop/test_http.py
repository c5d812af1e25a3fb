"""Claims about the bytes on the wire: what clients with HTTP stacks of their own rely on."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from urllib.error import HTTPError

import pytest

from tests.support.enrolling import certificate_in, pkcs_req
from tests.support.keys import spki
from tests.support.server import RunningServer

PATIENCE_S = 20.0
# More than the longest reply here, so that one recv could take it all.
RECEIVE_BYTES = 65536

# What manuals of other servers, MDMs and the clients themselves lead to.
PATHS = [
    "/",
    "/scep",
    "/scep/",
    "/scep/default",
    "/scep/default/pkiclient.exe",
    "/scep/no-such-profile",
    "/scep:8080/pkiclient.exe",
    "//scep//pkiclient.exe",
    "/SCEP/PKICLIENT.EXE",
    "/cgi-bin/pkiclient.exe",
    "/pkiclient.exe",
    "/any/prefix/cgi-bin/pkiclient.exe",
    "/certsrv/mscep/",
    "/certsrv/mscep/mscep.dll",
    "/certsrv/mscep/mscep.dll/pkiclient.exe",
    "/ejbca/publicweb/apply/scep/pkiclient.exe",
    "/ejbca/publicweb/apply/scep/default/pkiclient.exe",
    "/ca/scep/default/pkiclient.exe",
    "/ca/ee/ca/pkiclient",
    "/v1/pki/scep",
    "/v1/pki/roles/default/scep/pkiclient.exe",
    "/v1/protocols/scep/default/pkiclient.exe",
    "/mdm/scep/proxy/host,profile,ca,secret",
    "/static",
    "/api/v1/scep/default",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_conventional_path_answers(server: RunningServer, path: str) -> None:
    """A client is seldom wrong about the server and often about the path."""
    media_type, body = server.get(f"{path}?operation=GetCACaps&message=CAIdentifier")
    assert media_type == "text/plain"
    assert b"POSTPKIOperation\n" in body


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/challenges", "/index.html", "/scepter"])
def test_other_paths_do_not(server: RunningServer, path: str) -> None:
    """What is no convention of SCEP is not found."""
    with pytest.raises(HTTPError) as refused:
        server.get(f"{path}?operation=GetCACaps")
    refused.value.close()
    assert refused.value.code == 404


@pytest.mark.parametrize(
    ("operation", "media_type"),
    [("GetCACaps", "text/plain"), ("GetCACert", "application/x-x509-ca-ra-cert")],
)
def test_http_1_0_without_host_is_answered_and_closed(server: RunningServer, operation: str, media_type: str) -> None:
    """As sscep and IOS ask, which read until the end of the connection."""
    with _connect(server) as connection:
        connection.sendall(f"GET /cgi-bin/pkiclient.exe?operation={operation} HTTP/1.0\r\n\r\n".encode())
        header, body = _read_all(connection)
    assert header.split()[1] == b"200"
    assert b"\r\ncontent-type: " + media_type.encode() + b"\r\n" in header.lower() + b"\r\n"
    assert f"content-length: {len(body)}".encode() in header.lower()


def test_a_whole_enrollment_goes_over_http_1_0(server: RunningServer) -> None:
    """POST without Host and without Content-Type, as sscep's."""
    device = server.register()
    message = pkcs_req(server, device)
    with _connect(server) as connection:
        connection.sendall(_post(message, version="1.0"))
        header, body = _read_all(connection)
    assert b"\r\ncontent-type: application/x-pki-message\r\n" in header.lower() + b"\r\n"
    assert certificate_in(server, body, device).spki == spki(device.key)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's count of segments is read as Linux lays it out")
@pytest.mark.parametrize("request_for", ["GetCACaps", "GetCACert", "PKIOperation"])
def test_header_and_body_leave_in_one_segment(server: RunningServer, request_for: str) -> None:
    """Two writes would cost a delayed acknowledgement, some 40 ms for each request of a connection that is kept."""
    asked = _post(pkcs_req(server, server.register())) if request_for == "PKIOperation" else _get(request_for)
    with _connect(server) as connection:
        for answers in (1, 2, 3):
            connection.sendall(asked)
            header, _, body = connection.recv(RECEIVE_BYTES).partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}".encode() in header.lower()
            assert _segments_received(connection) == answers


@pytest.mark.parametrize(
    "path",
    ["/scep?operation=GetCACaps", "/scep?operation=GetCACert", "/crl/default.crl", "/certs/default.cer"],
)
def test_no_content_type_has_a_parameter(server: RunningServer, path: str) -> None:
    """Clients compare the whole field; `; charset=utf-8` breaks scepclient and certmonger."""
    media_type, _ = server.get(path)
    assert ";" not in media_type


def test_a_refusal_has_the_media_type_of_an_answer_and_no_parameter(server: RunningServer) -> None:
    """HTTP 200 and a signed FAILURE; sscep insists on the type, strongSwan on the status."""
    message = pkcs_req(server, server.register(profile="legacy"))
    asked = urllib.request.Request(server.url() + "?operation=PKIOperation", data=message)
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/x-pki-message"
        assert response.headers["Content-Encoding"] is None
        assert response.headers["Transfer-Encoding"] is None


def test_the_same_request_twice_at_once_gets_one_certificate(server: RunningServer) -> None:
    """A device that lost patience, and its first request still under way."""
    device = server.register()
    message = pkcs_req(server, device)
    replies = _at_once(2, lambda: server.post(message))
    assert len({certificate_in(server, reply, device) for reply in replies}) == 1
    assert len(server.certificates_of(device.device_serial)) == 1


def test_one_challenge_shown_by_two_keys_at_once_is_good_for_one(server: RunningServer) -> None:
    """It is spent in the transaction that records the enrollment."""
    device = server.register()
    messages = iter([pkcs_req(server, device), pkcs_req(server, device, key=device.next_key)])
    _at_once(2, lambda: server.post(next(messages)))
    assert len(server.certificates_of(device.device_serial)) == 1


# --- plumbing -------------------------------------------------------------------------------------------------------


def _connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def _segments_received(connection: socket.socket) -> int:
    """Return tcpi_data_segs_in of the kernel's struct tcp_info; one recv may return what came in two segments."""
    (count,) = struct.unpack_from("=I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 152)
    return int(count)


def _get(operation: str) -> bytes:
    return f"GET /scep?operation={operation} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _post(message: bytes, *, version: str = "1.1") -> bytes:
    host = "Host: x\r\n" if version == "1.1" else ""
    head = f"POST /scep?operation=PKIOperation HTTP/{version}\r\n{host}Content-Length: {len(message)}\r\n\r\n"
    return head.encode() + message


def _read_all(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read until the server closes; return header and body."""
    received = b"".join(_chunks(connection))
    header, _, body = received.partition(b"\r\n\r\n")
    return header, body


def _chunks(connection: socket.socket) -> Iterator[bytes]:
    while chunk := connection.recv(RECEIVE_BYTES):
        yield chunk


def _at_once(count: int, call: Callable[[], bytes]) -> list[bytes]:
    """Call from so many threads, all started at the same moment."""
    replies: list[bytes] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait(PATIENCE_S)
        replies.append(call())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(replies) == count
    return replies
