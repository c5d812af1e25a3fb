"""What a certificate is called: subject and subjectAltName from profile, AAA answer, device ID and vouched-for claims.

Nothing else decides names. The same facts always make the same octets; renewal and recovery after a crash rely on it.
`name_templates` and `alternative_names` make names, `vouching` judges claimed ones; reasons for a security team and
worked examples are in docs/naming.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from scep_ra.enrollment.alternative_names import (
    DirectoryEntry,
    Entry,
    RequestedNames,
    TextEntry,
    checked_name,
    read_entry,
)
from scep_ra.enrollment.errors import NameNotVouched, NamingImpossible
from scep_ra.enrollment.name_templates import NameTemplate, Variable, read_name_template
from scep_ra.enrollment.vouching import AllowedAttribute, NamingFacts, check_attribute, check_general_name, read_allowed
from scep_ra.pki import der, names
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.general_names import GeneralName, parse_general_names
from scep_ra.pki.names import NameAttribute

__all__ = ["CertificateNames", "NamingFacts", "NamingRules"]

_EMPTY_NAME: Final = der.sequence()
_MAX_DROPPED_CHARACTERS: Final = 255  # of one dropped name, so that a record stays readable


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateNames:
    """The names of one certificate."""

    subject: bytes  # DER Name
    subject_alt_name: bytes | None  # DER GeneralNames; None = no extension
    dropped: tuple[str, ...] = ()  # `kind:text` of names that the CSR asked for and nothing vouches for; printable


@dataclass(frozen=True, slots=True, kw_only=True)
class NamingRules:
    """The naming of one profile, made by `compile`."""

    subject: NameTemplate | None  # None = the CSR's
    subject_allowed: tuple[AllowedAttribute, ...]
    subject_unchecked: bool
    subject_alt_name: tuple[Entry, ...]

    @classmethod
    def compile(
        cls,
        *,
        subject: str = "",
        subject_allowed: Sequence[str] = (),
        subject_unchecked: bool = False,
        subject_alt_name: Sequence[str] = (),
    ) -> NamingRules:
        """Read the options of a profile; raise ValueError that says what is wrong, where, and what is allowed."""
        return cls(
            subject=read_name_template(subject) if subject else None,
            subject_allowed=read_allowed(subject_allowed),
            subject_unchecked=subject_unchecked,
            subject_alt_name=tuple(map(read_entry, subject_alt_name)),
        )

    def names(self, facts: NamingFacts) -> CertificateNames:
        """Return what the certificate is called.

        Raise NameNotVouched when the CSR claims what nothing vouches for, NamingImpossible when a template lacks a
        value, a value does not fit, or there would be no name at all (RFC 5280 4.1.2.6).
        """
        value_of = _Values(facts=facts, rules=self)
        subject = self._claimed_subject(facts) if self.subject is None else self.subject.fill(value_of)
        made: list[bytes] = []
        dropped: list[str] = []
        for entry in self.subject_alt_name:
            match entry:
                case RequestedNames():
                    kept, lost = _requested_names(facts, subject)
                    made += kept
                    dropped += lost
                case DirectoryEntry():
                    made += _present(entry.fill(value_of))
                case TextEntry():
                    made += _present(entry.fill(value_of, facts.device_id))
                case _:
                    assert_never(entry)
        if subject == _EMPTY_NAME and not made:
            raise NamingImpossible(
                "subject and subjectAltName would both be empty: write a template in "
                f"profile.{facts.profile}.subject or .subject_alt_name"
            )
        # One name once, in the order of the profile.
        alternatives = der.sequence(*dict.fromkeys(made)) if made else None
        return CertificateNames(subject=subject, subject_alt_name=alternatives, dropped=tuple(dropped))

    def _claimed_subject(self, facts: NamingFacts) -> bytes:
        """Return the CSR's subject, octet by octet: Cisco IOS does not recognise its certificate under another."""
        for rdn in _claimed_rdns(facts):
            if not rdn:
                raise NameNotVouched("the CSR's subject has an RDN without attributes (X.501 9.3)")
            for attribute in rdn:
                self.check(attribute, facts)
        return facts.csr_subject

    def check(self, attribute: NameAttribute, facts: NamingFacts) -> None:
        """Check an attribute that the CSR claims, unless the profile believes everything; raise NameNotVouched."""
        if not self.subject_unchecked:
            check_attribute(attribute, facts, self.subject_allowed)


def _present(name: bytes | None) -> list[bytes]:
    return [] if name is None else [name]


def _claimed_rdns(facts: NamingFacts) -> tuple[tuple[NameAttribute, ...], ...]:
    try:
        return names.rdns(facts.csr_subject)
    except MalformedData as error:
        raise NameNotVouched(f"the CSR's subject cannot be read: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Values:
    """Looks up variables; called by templates."""

    facts: NamingFacts
    rules: NamingRules

    def __call__(self, variable: Variable) -> str | None:
        """Return the text of a variable, None for an optional one without; raise NamingImpossible or NameNotVouched."""
        text = self._look_up(variable).strip(" ")
        if text and not text.isprintable():
            raise NamingImpossible(
                f"{variable} has several values, or characters that cannot be printed: {text!a}; a name takes neither"
            )
        if not text and not variable.optional:
            known = ", ".join(sorted(self.facts.attributes)) or "none"
            raise NamingImpossible(
                f"{variable} has no value (attributes in the AAA answer: {known}): let AAA give it one, "
                f"or write {{{variable.name}?}} in profile.{self.facts.profile} to leave it out"
            )
        return text or None

    def _look_up(self, variable: Variable) -> str:
        facts = self.facts
        known = {
            "device": str(facts.device_id),
            "device.kind": str(facts.device_id.kind),
            "device.value": facts.device_id.value,
            "profile": facts.profile,
            "user": facts.attributes.get("user", ""),
        }
        if variable.name in known:
            return known[variable.name]
        source, _, name = variable.name.partition(".")
        return self._claimed(variable, names.attribute_oid(name)) if source == "csr" else facts.attributes.get(name, "")

    def _claimed(self, variable: Variable, oid: str) -> str:
        """Return the CSR's only attribute of this type, if something vouches for it."""
        found = [each for rdn in _claimed_rdns(self.facts) for each in rdn if each.oid == oid]
        if len(found) > 1:
            raise NamingImpossible(f"{variable} stands for one value, and the CSR's subject has {len(found)}")
        for attribute in found:
            self.rules.check(attribute, self.facts)
        return "".join(attribute.text for attribute in found)


def _requested_names(facts: NamingFacts, subject: bytes) -> tuple[list[bytes], list[str]]:
    """Return the CSR's alternative names that are vouched for, as DER, and the texts of the others.

    The others are not refused: clients ask for what their configuration or operating system says, and a certificate
    without those names gives away nothing. They are told, so that the decision record shows the attempt.
    """
    kept: list[bytes] = []
    dropped: list[str] = []
    for element in _elements(facts.csr_subject_alt_name):
        name = _readable(element)
        try:
            check_general_name(name, element, facts, subject=subject)
            # Made anew from its text, except for the device IDs, which `identity` has read to the last octet.
            kept.append(element if name.kind == "other" else checked_name(name))
        except (NameNotVouched, NamingImpossible):
            text = str(name)[:_MAX_DROPPED_CHARACTERS]
            dropped.append(text if text.isprintable() else ascii(text))
    return kept, dropped


def _elements(general_names: bytes | None) -> Iterator[bytes]:
    """Yield each DER GeneralName of GeneralNames; raise NameNotVouched when they cannot be taken apart."""
    try:
        outer = der.Reader(der.sequence() if general_names is None else general_names)
        reader = outer.enter()
        outer.finish()
        while not reader.at_end():
            yield reader.element()
    except MalformedData as error:
        raise NameNotVouched(f"the CSR's subjectAltName cannot be read: {error}") from None


def _readable(element: bytes) -> GeneralName:
    try:
        (name,) = parse_general_names(der.sequence(element))
    except MalformedData:
        return GeneralName(kind="unreadable", text=element.hex())
    return name
