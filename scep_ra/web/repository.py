"""What relying parties fetch: CRLs and issuing certificates (RFC 5280 4.2.1.13, 4.2.2.1, media types of RFC 2585)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog
from aiohttp import hdrs, web

from scep_ra.enrollment.queries import CRLSource
from scep_ra.errors import BackendError
from scep_ra.pki.certificates import Certificate

log = structlog.stdlib.get_logger(__name__)

CRL_PATH: Final = "/crl/{ca}.crl"
CERTIFICATE_PATH: Final = "/certs/{ca}.cer"


def crl_url(public_url: str, ca: str) -> str:
    """Return the URL that certificates of a CA name as their CRL distribution point."""
    return public_url.rstrip("/") + CRL_PATH.format(ca=ca)


def certificate_url(public_url: str, ca: str) -> str:
    """Return the URL that certificates of a CA name as their issuer's certificate."""
    return public_url.rstrip("/") + CERTIFICATE_PATH.format(ca=ca)


def repository_routes(crls: CRLSource, issuers: Mapping[str, Certificate]) -> list[web.RouteDef]:
    """Return the routes for the CRL and certificate of every CA, `issuers` by CA name."""

    async def crl(request: web.Request) -> web.Response:
        name = _known(request, issuers)
        try:
            current = await crls.current_crl(name)
        except BackendError as error:
            log.warning("crl_unavailable", ca=name, reason=str(error))
            raise web.HTTPServiceUnavailable(headers={hdrs.RETRY_AFTER: "5"}) from None
        return web.Response(body=current.der, content_type="application/pkix-crl")

    async def certificate(request: web.Request) -> web.Response:
        return web.Response(body=issuers[_known(request, issuers)].der, content_type="application/pkix-cert")

    return [web.get(CRL_PATH, crl), web.get(CERTIFICATE_PATH, certificate)]


def _known(request: web.Request, issuers: Mapping[str, Certificate]) -> str:
    name = request.match_info["ca"]
    if name not in issuers:
        raise web.HTTPNotFound
    return name
