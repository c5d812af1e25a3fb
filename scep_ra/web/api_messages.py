"""Bodies of the HTTP API: JSON and forms to values, values to JSON. `openapi.json` describes them.

Besides our own there is the form of FreeRADIUS' rlm_rest, whose keys are RADIUS attributes. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from scep_ra.headend.access import Permit
from scep_ra.headend.av_pairs import CERT_SERIAL, av_pairs, read_serial
from scep_ra.headend.disconnect import DisconnectReport
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.types import DeviceID, parse_device_id
from scep_ra.storage.sessions import EntryChange
from scep_ra.strict_json import read_object
from scep_ra.web.api_clients import ApiClient

_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_MAX_FORM_FIELDS: Final = 256
# RADIUS attributes as rlm_rest calls them.
_USER_NAME: Final = "User-Name"
_AV_PAIR: Final = "Cisco-AVPair"
_CERTIFICATE_SERIAL: Final = "TLS-Client-Cert-Serial"

Fields = Mapping[str, Any]


class BadBody(ValueError):
    """A body that means nothing; the text is for whoever programs the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whether a device may connect."""

    device: str  # in any of the spellings of a RADIUS User-Name
    profile: str = ""
    certificate_serial: int | None = None  # of the certificate that the device has shown
    is_rlm_rest: bool = False  # the answer has to be for it, too


# --- what comes in -------------------------------------------------------------------------------------------------


def read_body(media_type: str, body: bytes) -> Fields:
    """Return the fields of a JSON object or of a form; raise BadBody."""
    match media_type:
        case "application/json":
            return _read_json(body)
        case "application/x-www-form-urlencoded":
            return _read_form(body)
        case _:
            raise BadBody(f"send {_JSON} or {_FORM}, and say so in Content-Type")


def _read_json(body: bytes) -> Fields:
    try:
        return read_object(body)
    except ValueError as error:
        raise BadBody(f"the body is {error}") from None


def _read_form(body: bytes) -> Fields:
    try:
        form = parse_qs(body.decode("ascii"), errors="strict", max_num_fields=_MAX_FORM_FIELDS)
    except ValueError:
        raise BadBody("the body is no form") from None
    return {name: values if len(values) > 1 else values[0] for name, values in form.items()}


def read_question(fields: Fields) -> Question:
    """Return the question that fields mean, ours or those of rlm_rest; raise BadBody."""
    if _USER_NAME in fields:
        return Question(
            device=_only(_USER_NAME, _values(fields, _USER_NAME)),
            certificate_serial=_shown_to_freeradius(fields),
            is_rlm_rest=True,
        )
    serial = _text(fields, "certificate_serial")
    return Question(
        device=_text(fields, "device", required=True),
        profile=_text(fields, "profile"),
        certificate_serial=_serial(serial) if serial else None,
    )


def _shown_to_freeradius(fields: Fields) -> int | None:
    pairs = [pair.partition("=") for pair in _values(fields, _AV_PAIR)]
    shown = [*_values(fields, _CERTIFICATE_SERIAL), *(value for name, _, value in pairs if name == CERT_SERIAL)]
    serials = {_serial(text) for text in shown}
    if len(serials) > 1:
        raise BadBody("the request names several certificates")
    return next(iter(serials), None)


def _values(fields: Fields, name: str) -> Sequence[str]:
    """Return the values of a RADIUS attribute: {"type": ..., "value": [...]}, or as a form has them."""
    value = fields.get(name, [])
    values = value.get("value", []) if isinstance(value, dict) else value
    values = values if isinstance(values, list) else [values]
    # A User-Name of digits alone comes as a number from some versions.
    if not all(isinstance(each, str | int) for each in values):
        raise BadBody(f"{name} is not what rlm_rest sends")
    return [str(each) for each in values]


def _only(name: str, values: Sequence[str]) -> str:
    if len(values) != 1 or not values[0]:
        raise BadBody(f"there has to be one {name}")
    return values[0]


def _serial(text: str) -> int:
    serial = read_serial(text)
    if serial is None:
        raise BadBody("the certificate serial is not hexadecimal, or too long")
    return serial


def read_disconnect(fields: Fields) -> tuple[DeviceID, EntryChange]:
    """Return which device to cut off, and what becomes of its entry; raise BadBody."""
    entry = _text(fields, "entry") or EntryChange.DISABLE.value
    if entry not in set(EntryChange):
        raise BadBody(f"entry is one of {', '.join(EntryChange)}")
    return _device(_text(fields, "device", required=True)), EntryChange(entry)


def read_deletions(fields: Fields) -> Sequence[DeviceID]:
    """Return which devices were deleted, each once; raise BadBody, also when one of them cannot be read."""
    devices = fields.get("devices")
    devices = [devices] if isinstance(devices, str) else devices
    if not isinstance(devices, list) or not devices or not all(isinstance(each, str) for each in devices):
        raise BadBody("devices has to be a list of device IDs")
    return tuple(dict.fromkeys(map(_device, devices)))


def read_bare_names(fields: Fields) -> Sequence[tuple[str, DeviceID]]:
    """Return the devices that stand without their kind in fields that were read before, and what they are taken for."""
    names = fields.get("devices") or fields["device"]
    read = [(name, _device(name)) for name in ([names] if isinstance(names, str) else names)]
    return [(name, device_id) for name, device_id in read if not _names_kind(name, device_id)]


def _names_kind(name: str, device_id: DeviceID) -> bool:
    return name.partition(":")[0].strip().lower() == device_id.kind


def _text(fields: Fields, name: str, *, required: bool = False) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or (required and not value):
        raise BadBody(f"{name} has to be a text" + (", and is missing" if required and not value else ""))
    return value


def _device(text: str) -> DeviceID:
    try:
        return parse_device_id(text)
    except IdentityError as error:
        raise BadBody(f"{text[:64]!r} is no device ID: {error}") from error


# --- what goes out -------------------------------------------------------------------------------------------------


def permit_document(permit: Permit, question: Question, client: ApiClient) -> Fields:
    """Return the yes to a question in the form in which it was asked."""
    return _for_freeradius(permit, client) if question.is_rlm_rest else _for_others(permit)


def _for_freeradius(permit: Permit, client: ApiClient) -> Fields:
    """Return what rlm_rest adds to its lists; it would expand %{...} in values if it were let to."""
    document: dict[str, Any] = {}
    if client.password:
        document["control:Cleartext-Password"] = {"op": ":=", "do_xlat": False, "value": [client.password]}
    pairs = list(av_pairs(permit, trustpoint=client.trustpoint))
    document[f"reply:{_AV_PAIR}"] = {"op": "+=", "do_xlat": False, "value": pairs}
    return document


def _for_others(permit: Permit) -> Fields:
    return {
        "device": str(permit.device_id),
        "ca": permit.ca,
        "certificate_serial": f"{permit.certificate_serial:x}",
        "not_after": permit.not_after.isoformat(),
        "profile": permit.profile,
        "services": sorted(permit.services),
        "attributes": dict(permit.attributes),
    }


def report_document(report: DisconnectReport) -> Fields:
    """Return what a disconnect did."""
    changes = report.changes
    return {
        "device": str(changes.device_id),
        "entry_changed": changes.entry_changed,
        "challenges_voided": changes.challenges_voided,
        "requests_rejected": changes.requests_rejected,
        "certificates_revoked": [{"ca": ca, "certificate_serial": f"{serial:x}"} for ca, serial in changes.revoked],
        "crls": dict(report.crls),
        "messages": [
            {
                "kind": delivery.message.kind.value,
                "target": delivery.message.target,
                "result": delivery.message.result,
                "settled": delivery.is_settled,
            }
            for delivery in report.deliveries
        ],
        "elapsed_ms": round(report.elapsed_ms, 1),
    }


def error_document(code: str, message: str) -> Fields:
    """Return an error: `code` for programs, `message` for people."""
    return {"error": {"code": code, "message": message}}
