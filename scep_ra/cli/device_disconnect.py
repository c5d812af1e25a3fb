"""`scep-ra device disable` and `device remove`: cut a device off and tell, line by line, what that did.

What a disconnect is, `headend.disconnect` says; the commands stand with their group in `device`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, assert_never

import click

from scep_ra.cli.session import NotFound, Session, find_device, operator, possible_device_ids
from scep_ra.disconnect_parts import LateCRLs, make_disconnects, make_outbox
from scep_ra.headend.disconnect import Delivery, DisconnectReport
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.revocation.crl import RevocationReason
from scep_ra.storage.base import Store
from scep_ra.storage.sessions import EntryChange, MessageKind

_REASONS: Final = {reason.name.lower(): reason for reason in RevocationReason}
_VERBS: Final = {EntryChange.DISABLE: "disabled", EntryChange.REMOVE: "removed"}

reason_option: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "--reason",
    type=click.Choice(list(_REASONS)),
    callback=lambda _context, _parameter, name: _REASONS[name],
    default="cessation_of_operation",
    show_default=True,
    help="Why its certificates are revoked; key_compromise blocks its key for good.",
)
keep_certificates_option: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "--keep-certificates",
    is_flag=True,
    help="Change the entry alone: certificates stay valid, sessions go on, and nobody is told.",
)


async def disconnect(
    session: Session, value: str, kind: DeviceIDKind | None, entry: EntryChange, reason: RevocationReason
) -> DisconnectReport:
    """Cut off the device that was typed and send what has to be sent from here; what is left, the server sends.

    Raise NotFound, a usage error or a BackendError.
    """
    device_id = await _find(session, value, kind)
    settings, store = session.settings, session.store
    outbox = make_outbox(settings, store)
    try:
        service = make_disconnects(settings, store, outbox, LateCRLs(settings, store), {})
        return await service.disconnect(device_id, entry=entry, by=f"cli:{operator()}", reason=reason)
    finally:
        await outbox.close()


async def _find(session: Session, value: str, kind: DeviceIDKind | None) -> DeviceID:
    """Return the registered device that is meant, or the one that another AAA system let in."""
    try:
        return (await find_device(session, value, kind)).device_id
    except NotFound:
        guests = [each for each in possible_device_ids(value, kind) if await _is_known(session.store, each)]
        if len(guests) != 1:
            raise
        return guests[0]


async def _is_known(store: Store, device_id: DeviceID) -> bool:
    return bool(await store.list_certificates(device_id) or await store.list_sessions(device_id, 1))


def echo_report(report: DisconnectReport, entry: EntryChange) -> None:
    """Print what a disconnect did."""
    for line in _lines(report, entry):
        click.echo(line)


def _lines(report: DisconnectReport, entry: EntryChange) -> Iterator[str]:
    changes = report.changes
    verb = _VERBS[entry]
    if changes.entry_changed:
        yield f"{verb} {changes.device_id}"
    else:
        yield f"{changes.device_id} is not registered here, or was {verb} before: another AAA system may let it in"
    yield f"voided challenges: {changes.challenges_voided}"
    yield f"rejected requests: {changes.requests_rejected}"
    yield f"revoked certificates: {len(changes.revoked)}"
    for ca, serial in changes.revoked:
        yield f"  {serial:x} of CA {ca}"
    for ca, number in report.crls.items():
        yield f"CRL {number} of CA {ca} lists them"
    for delivery in report.deliveries:
        yield _delivery_line(delivery)
    if report.open_deliveries:
        yield f"not delivered yet: {report.open_deliveries}; will be retried by the server"
    yield f"done in {report.elapsed_ms:.0f} ms"


def _delivery_line(delivery: Delivery) -> str:
    message = delivery.message
    match message.kind:
        case MessageKind.DISCONNECT:
            whom = f"headend {message.target}, session {message.payload['session_id']}"
        case MessageKind.WEBHOOK:
            whom = f"webhook {message.target}"
        case _:
            assert_never(message.kind)
    result = message.result or "no answer yet"
    return f"{whom}: {result}" + ("" if delivery.took is None else f" ({delivery.took.total_seconds() * 1000:.0f} ms)")
