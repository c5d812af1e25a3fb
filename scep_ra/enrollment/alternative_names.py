"""The subjectAltName entries of a profile: `KIND:TEMPLATE` texts, and what their values must look like.

What another party may have written into a value is checked here, name form by name form (RFC 5280 4.2.1.6); a name
that would say something else to some relying party is not made. `csr`, the entry for names that the device asks for,
is only recognised here; `naming` carries it out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from scep_ra.enrollment.errors import NamingImpossible
from scep_ra.enrollment.name_templates import (
    NameTemplate,
    TextTemplate,
    ValueOf,
    Variable,
    read_name_template,
    read_text_template,
)
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.pki import der
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.general_names import ENCODED_KINDS, GeneralName, encode_directory_name, encode_general_name

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# The last label has a letter, or an IPv4 address would be a host name.
_HOST: Final = rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}"
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"  # RFC 5322 3.2.3
_FORMS: Final = {
    "dns": (_HOST, "a host name of letters, digits and hyphens (a wildcard has to stand in the template)"),
    "email": (rf"{_ATOM}(?:\.{_ATOM})*@{_HOST}", "an ASCII address of the form local@host"),
    # Scheme and the characters of RFC 3986 2; a URN (RFC 8141) and a URL with a host alike.
    "uri": (
        r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+",
        "a URI with a scheme and percent-encoding (RFC 3986)",
    ),
    "upn": (r"[^@\s]+@[^@\s]+", "a user principal name of the form user@domain"),
}
_ANY: Final = (r"(?s:.)*", "")  # judged by its encoder
_WILDCARD: Final = "*."


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedNames:
    """The entry `csr`: names of the request that are vouched for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """`directory:` and a template of a distinguished name."""

    template: NameTemplate

    def fill(self, value_of: ValueOf) -> bytes | None:
        """Return a DER GeneralName, None when nothing is left of the name; raise NamingImpossible."""
        name = self.template.fill(value_of)
        return encode_directory_name(name) if name != der.sequence() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEntry:
    """Any other kind and a template of its text."""

    kind: str
    template: TextTemplate

    def fill(self, value_of: ValueOf, device_id: DeviceID) -> bytes | None:
        """Return a DER GeneralName, None when an optional value is missing; raise NamingImpossible."""
        text = self.template.fill(self._escaping(value_of))
        if text is None:
            return None
        if self.kind == "permanent-identifier" and not self._has_assigner(device_id):
            text = f":{text}"
        return checked_name(
            GeneralName(kind=self.kind, text=text), allow_wildcard=self.template.start.startswith(_WILDCARD)
        )

    def _escaping(self, value_of: ValueOf) -> ValueOf:
        """Percent-encode what goes into a URI, so that a value stays in its place; a URI that is one value is whole."""
        if self.kind != "uri" or self.template.only_variable:
            return value_of
        literals = "".join(piece for piece in self.template.pieces if isinstance(piece, str))
        safe = "" if "//" in literals else ":"  # a colon in a host would begin the port; in a URN it is text

        def escaped(variable: Variable) -> str | None:
            value = value_of(variable)
            return None if value is None else quote(value, safe=safe)

        return escaped

    def _has_assigner(self, device_id: DeviceID) -> bool:
        """Tell whether the text is `OID:VALUE`: because the template writes it so, or because the device ID is so.

        A value of AAA is never looked at for it, or it could choose the namespace.
        """
        variable = self.template.only_variable
        if variable is not None and variable.name == "device.value":
            return device_id.kind is DeviceIDKind.PERMANENT_IDENTIFIER
        return ":" in self.template.start


Entry = RequestedNames | DirectoryEntry | TextEntry


def read_entry(entry: str) -> Entry:
    """Read an entry of `subject_alt_name`; raise ValueError that says where it is wrong and what is allowed."""
    if entry == "csr":
        return RequestedNames()
    kind, _, text = entry.partition(":")
    if kind not in ENCODED_KINDS or not text:
        raise ValueError(f'{entry!r}: write "csr", or KIND:TEMPLATE with KIND one of {", ".join(ENCODED_KINDS)}')
    if kind == "directory":
        return DirectoryEntry(template=read_name_template(text))
    template = read_text_template(text)
    if template.constant is not None:
        try:
            checked_name(GeneralName(kind=kind, text=template.constant), allow_wildcard=True)
        except NamingImpossible as error:
            raise ValueError(str(error)) from None
    return TextEntry(kind=kind, template=template)


def checked_name(name: GeneralName, *, allow_wildcard: bool = False) -> bytes:
    """Return a DER GeneralName whose text is what its kind demands; raise NamingImpossible that says what it is not."""
    form, description = _FORMS.get(name.kind, _ANY)
    text = name.text.removeprefix(_WILDCARD) if name.kind == "dns" and allow_wildcard else name.text
    if not re.fullmatch(form, text):
        raise NamingImpossible(f"subjectAltName {str(name)!a} is not {description}")
    try:
        return encode_general_name(name)
    except MalformedData as error:
        raise NamingImpossible(f"subjectAltName {error}") from None
