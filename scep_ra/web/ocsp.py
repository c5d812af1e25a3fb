"""OCSP over HTTP (RFC 6960 A, RFC 5019 5 and 6): POST /ocsp/CA, and GET /ocsp/CA/BASE64 that caches may keep.

What is answered is `revocation.responder`'s; here are octets, headers, and the table from our errors to OCSP's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, Protocol

import structlog
from aiohttp import ETag, hdrs, web

from scep_ra.enrollment.limits import network_of, per_address
from scep_ra.errors import BackendError, Unavailable
from scep_ra.pki.errors import PKIError
from scep_ra.revocation.ocsp import MAX_REQUEST_BYTES, ResponseStatus, error_response
from scep_ra.revocation.responder import Answer, ForeignIssuer
from scep_ra.scep.errors import TransportError
from scep_ra.scep.http_binding import decode_get_message
from scep_ra.web.crypto_pool import Overloaded

log = structlog.stdlib.get_logger(__name__)

OCSP_PATH: Final = "/ocsp/{ca}"
_TOO_MANY: Final = "too many requests of one address ([limits] max_requests_per_address_per_s)"
_MEDIA_TYPE: Final = "application/ocsp-response"
# RFC 5019 6.2 lets caches answer for us until nextUpdate. With an age of 0 they have to ask each time, and are told
# that nothing has changed: a revocation is known to everybody at once.
_KEEP_AND_ASK: Final = "max-age=0, public, no-transform, must-revalidate"


class OCSPSource(Protocol):
    """What answers for one CA."""

    async def answer(self, octets: bytes) -> Answer:
        """Answer a DER OCSPRequest; raise PKIError, ForeignIssuer or a BackendError."""
        ...


def ocsp_url(public_url: str, ca: str) -> str:
    """Return the URL that certificates of a CA name for OCSP."""
    return public_url.rstrip("/") + OCSP_PATH.format(ca=ca)


def ocsp_routes(
    responders: Mapping[str, OCSPSource], *, max_requests_per_address_per_s: float = 0
) -> list[web.RouteDef]:
    """Return the routes that ask these, by name of the CA; who asks too often, 0 = as one likes, hears "try later"."""
    allowances = per_address(max_requests_per_address_per_s)

    async def answer(request: web.Request, name: str, source: OCSPSource, octets: bytes) -> web.Response:
        # A nonce makes us sign each time.
        if allowances is not None and not allowances.take(network_of(request.remote or "")):
            return _refuse(request, name, ResponseStatus.TRY_LATER, Overloaded(_TOO_MANY))
        return await _respond(request, name, source, octets)

    async def post(request: web.Request) -> web.Response:
        name, source = _known(request, responders)
        return await answer(request, name, source, await request.read())

    async def get(request: web.Request) -> web.Response:
        name, source = _known(request, responders)
        # The alphabet of base64 has a slash, which clients escape or not; some put one more behind the URL.
        text = request.match_info["request"].lstrip("/").encode()
        try:
            octets = decode_get_message(text, MAX_REQUEST_BYTES)
        except TransportError as error:
            return _refuse(request, name, ResponseStatus.MALFORMED_REQUEST, error)
        return await answer(request, name, source, octets)

    return [web.post(OCSP_PATH, post), web.get(OCSP_PATH + "/{request:.+}", get)]


def _known(request: web.Request, responders: Mapping[str, OCSPSource]) -> tuple[str, OCSPSource]:
    name = request.match_info["ca"]
    if name not in responders:
        raise web.HTTPNotFound
    return name, responders[name]


async def _respond(request: web.Request, name: str, source: OCSPSource, octets: bytes) -> web.Response:
    """Return the answer, or which of OCSP's four refusals stands for our error."""
    try:
        answer = await source.answer(octets)
    except (PKIError, ForeignIssuer, BackendError) as error:
        return _refuse(request, name, _status_of(error), error)
    except Exception:
        log.exception("ocsp_failed", ca=name, source=request.remote)
        return _reply(error_response(ResponseStatus.INTERNAL_ERROR))
    if request.method == hdrs.METH_POST or answer.has_nonce:
        return _reply(answer.der)
    return _reply_for_caches(request, answer)


def _status_of(error: Exception) -> ResponseStatus:
    match error:
        case PKIError():
            return ResponseStatus.MALFORMED_REQUEST
        case ForeignIssuer():
            return ResponseStatus.UNAUTHORIZED
        case Unavailable():
            return ResponseStatus.TRY_LATER
        case _:
            return ResponseStatus.INTERNAL_ERROR


def _refuse(request: web.Request, name: str, status: ResponseStatus, error: Exception) -> web.Response:
    report = log.warning if isinstance(error, BackendError) else log.info
    report("ocsp_refused", ca=name, source=request.remote, status=status.name.lower(), reason=str(error))
    return _reply(error_response(status))


def _reply(octets: bytes) -> web.Response:
    return web.Response(body=octets, content_type=_MEDIA_TYPE, headers={hdrs.CACHE_CONTROL: "no-store"})


def _reply_for_caches(request: web.Request, answer: Answer) -> web.Response:
    tag = hashlib.sha256(answer.der).hexdigest()
    known = ETag(value=tag) in (request.if_none_match or ())
    response = web.Response(status=304) if known else web.Response(body=answer.der, content_type=_MEDIA_TYPE)
    response.etag = tag
    response.last_modified = answer.this_update
    response.headers[hdrs.CACHE_CONTROL] = _KEEP_AND_ASK
    return response
