"""The HTTP API under /api/v1: headends ask, administration cuts off, AAA systems report what they deleted.

A thin shell: bodies are read by `api_messages`, clients known by `api_clients`, everything decided in `headend`.
`openapi.json` describes it. No browser is meant, so there is no CORS.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from typing import Final, Protocol, assert_never

import structlog
from aiohttp import hdrs, web

from scep_ra.errors import BackendError
from scep_ra.headend.access import Deny, Permit
from scep_ra.headend.disconnect import DisconnectReport
from scep_ra.headend.sync import DeletionCap, TooManyDeletions
from scep_ra.identity.types import DeviceID
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.sessions import EntryChange
from scep_ra.web.api_clients import ApiClient, ApiClients, Scope
from scep_ra.web.api_messages import (
    BadBody,
    Fields,
    error_document,
    permit_document,
    read_bare_names,
    read_body,
    read_deletions,
    read_disconnect,
    read_question,
    report_document,
)

log = structlog.stdlib.get_logger(__name__)

PREFIX: Final = "/api/v1"
_DESCRIPTION: Final = "openapi.json"
# RFC 9110 11.6.1 demands it of every 401; the one that rlm_rest takes for a no is one.
_CHALLENGE: Final = 'Basic realm="scep-ra", charset="UTF-8"'
_RETRY_AFTER_S: Final = "5"


class Engine(Protocol):
    """Who decides for headends (`headend.access.AccessEngine`)."""

    async def decide(
        self,
        user_name: str,
        *,
        headend: str,
        source: str = "",
        profile: str = "",
        certificate_serial: int | None = None,
    ) -> Permit | Deny:
        """Say whether the device of this name may connect; raise a BackendError."""
        ...

    async def identify(self, user_name: str) -> DeviceID | None:
        """Return the device that has or had certificates under this name; raise a BackendError."""
        ...


class Disconnects(Protocol):
    """Who cuts devices off (`headend.disconnect.DisconnectService`)."""

    async def disconnect(self, device_id: DeviceID, *, entry: EntryChange, by: str) -> DisconnectReport:
        """Cut a device off; raise a BackendError."""
        ...


class Deletions(Protocol):
    """Who takes reports of deletions (`headend.deletions.ReportedDeletions`)."""

    async def carry_out(
        self, device_ids: Sequence[DeviceID], cap: DeletionCap, *, reporter: str
    ) -> Sequence[DisconnectReport]:
        """Disconnect these devices; raise TooManyDeletions or a BackendError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request whose client is known and may do this."""

    client: ApiClient
    source: str
    fields: Fields


class _Refusal(Exception):
    """Ends a request with an HTTP status and an error document."""

    def __init__(self, status: HTTPStatus, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.response: Final = web.json_response(
            error_document(code, message),
            status=status,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


class Api:
    """The handlers."""

    def __init__(self, *, clients: ApiClients, engine: Engine, disconnects: Disconnects, deletions: Deletions) -> None:
        self._clients = clients
        self._engine = engine
        self._disconnects = disconnects
        self._deletions = deletions
        self._description: Final = resources.files(__package__).joinpath(_DESCRIPTION).read_bytes()

    def routes(self) -> Sequence[web.RouteDef]:
        """Return all routes; nothing else under the prefix is anybody else's."""
        return [
            web.post(f"{PREFIX}/authorize", self._handler(Scope.AUTHORIZE, self._authorize)),
            web.post(f"{PREFIX}/disconnect", self._handler(Scope.DISCONNECT, self._disconnect)),
            web.post(f"{PREFIX}/aaa/deleted", self._handler(Scope.DEVICES, self._deleted)),
            web.get(f"{PREFIX}/{_DESCRIPTION}", self._describe),
            web.route("*", "/api/{path:.*}", self._unknown),
        ]

    # --- what clients ask for

    async def _authorize(self, call: Call) -> Fields:
        question = read_question(call.fields)
        decision = await self._engine.decide(
            question.device,
            headend=_name(call.client),
            source=call.source,
            profile=call.client.profile or question.profile,
            certificate_serial=question.certificate_serial,
        )
        match decision:
            case Permit():
                return permit_document(decision, question, call.client)
            case Deny():
                # rlm_rest takes 401, and no other status, for a plain no. The reason is in the log.
                raise _unauthorized("rejected", "the device may not connect")
            case _:
                assert_never(decision)

    async def _disconnect(self, call: Call) -> Fields:
        device_id, entry = read_disconnect(call.fields)
        await self._check_meant(call.fields)
        return report_document(await self._disconnects.disconnect(device_id, entry=entry, by=_name(call.client)))

    async def _deleted(self, call: Call) -> Fields:
        device_ids = read_deletions(call.fields)
        await self._check_meant(call.fields)
        try:
            reports = await self._deletions.carry_out(device_ids, call.client.deletions, reporter=_name(call.client))
        except TooManyDeletions as error:
            raise _Refusal(HTTPStatus.CONFLICT, "too_many_deletions", str(error)) from error
        return {"disconnected": [report_document(report) for report in reports]}

    async def _check_meant(self, fields: Fields) -> None:
        """Raise BadBody when a name without kind is taken for nobody, and a device of another kind has it.

        To cut off nobody would look like a success, and the lost device would go on.
        """
        for name, device_id in read_bare_names(fields):
            known = await self._engine.identify(name)
            if known not in (None, device_id):
                raise BadBody(
                    f"{name[:64]!r} means {device_id}, and the certificates are of {known}: send one of these"
                )

    async def _describe(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._description, content_type="application/json")

    async def _unknown(self, request: web.Request) -> web.Response:
        known = {f"{PREFIX}/authorize", f"{PREFIX}/disconnect", f"{PREFIX}/aaa/deleted"}
        if request.path in known:
            message = "send a POST"
            return _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", message, Allow="POST").response
        return _Refusal(HTTPStatus.NOT_FOUND, "not_found", f"see {PREFIX}/{_DESCRIPTION}").response

    # --- what all of them go through

    def _handler(
        self, scope: Scope, work: Callable[[Call], Awaitable[Fields]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                return web.json_response(await work(await self._call(request, scope)))
            except Exception as error:  # noqa: BLE001 - each has its answer, and a bug is logged
                return _refusal(error, request).response

        return handle

    async def _call(self, request: web.Request, scope: Scope) -> Call:
        """Return a request that may be carried out; raise _Refusal or BadBody."""
        source = request.remote or ""
        client = self._clients.find(request.headers.get(hdrs.AUTHORIZATION, ""))
        if client is None:
            security_event(SecurityEvent.API_REFUSED, source=source, path=request.path, reason="no token of a client")
            raise _unauthorized("unauthenticated", "send the token of an [api.NAME] as bearer token or password")
        if scope not in client.scopes:
            reason = f"the scopes of [api.{client.name}] lack {scope.value!r}"
            security_event(SecurityEvent.API_REFUSED, source=source, path=request.path, reason=reason)
            raise _Refusal(HTTPStatus.FORBIDDEN, "forbidden", reason)
        return Call(client=client, source=source, fields=read_body(request.content_type, await request.read()))


def _refusal(error: Exception, request: web.Request) -> _Refusal:
    """Return what becomes of an error."""
    facts = {"path": request.path, "source": request.remote or ""}
    match error:
        case _Refusal():
            return error
        case BadBody():
            return _Refusal(HTTPStatus.BAD_REQUEST, "bad_request", str(error))
        case BackendError():
            log.warning("backend_failed", **facts, reason=str(error))
            message = "no answer can be given now: try again later"
            return _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, Retry_After=_RETRY_AFTER_S)
        case _:
            incident = secrets.token_hex(4)
            log.error("internal_error", **facts, incident=incident, exc_info=error)
            return _Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", f"internal error, incident {incident}")


def _unauthorized(code: str, message: str) -> _Refusal:
    return _Refusal(HTTPStatus.UNAUTHORIZED, code, message, WWW_Authenticate=_CHALLENGE)


def _name(client: ApiClient) -> str:
    """Return what a client is called in logs, and in the audit log beside `cli:NAME`."""
    return f"api:{client.name}"
