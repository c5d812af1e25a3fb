"""Read CertReps with asn1crypto and `cryptography` alone: a second opinion on what the product writes."""

from __future__ import annotations

from dataclasses import dataclass

from asn1crypto import cms
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from scep_ra.pki.certificates import Certificate
from tests.support.scep_messages import CIPHER_OIDS, HASHES, cbc_decrypt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A verified CertRep."""

    attributes: dict[str, bytes]  # the one DER value of each, by dotted OID
    attribute_order: list[bytes]  # encoded, as they stand
    content: bytes | None
    certificates: list[bytes]
    digest: str
    signature_oid: str

    def text(self, oid: str) -> str:
        """Return the text of a PrintableString or UTF8String attribute."""
        return self.attributes[oid][2:].decode()

    def open(self, key: rsa.RSAPrivateKey) -> tuple[str, bytes]:
        """Decrypt the envelope; return the cipher's name and the content."""
        assert self.content is not None
        enveloped = cms.ContentInfo.load(self.content, strict=True)["content"]
        (recipient,) = enveloped["recipient_infos"]
        content_key = key.decrypt(recipient.chosen["encrypted_key"].native, padding.PKCS1v15())
        encrypted = enveloped["encrypted_content_info"]
        oid = encrypted["content_encryption_algorithm"]["algorithm"].dotted
        iv = encrypted["content_encryption_algorithm"]["parameters"].native
        cipher = next(name for name, cipher_oid in CIPHER_OIDS.items() if cipher_oid == oid)
        padded = cbc_decrypt(cipher, content_key, iv, encrypted["encrypted_content"].native)
        return cipher, padded[: -padded[-1]]


def read_reply(body: bytes, signer: Certificate) -> Reply:
    """Read a CertRep strictly and verify it with the certificate that should have signed it."""
    signed = cms.ContentInfo.load(body, strict=True)["content"]
    (info,) = signed["signer_infos"]
    digest = info["digest_algorithm"]["algorithm"].native
    key = load_der_public_key(signer.spki)
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(info["signature"].native, info["signed_attrs"].untag().dump(), padding.PKCS1v15(), HASHES[digest])
    attributes = {}
    for item in info["signed_attrs"]:
        (value,) = item["values"]
        attributes[item["type"].dotted] = value.dump()
    return Reply(
        attributes=attributes,
        attribute_order=[item.dump() for item in info["signed_attrs"]],
        content=signed["encap_content_info"]["content"].native,
        certificates=[item.dump() for item in signed["certificates"]],
        digest=digest,
        signature_oid=info["signature_algorithm"]["algorithm"].dotted,
    )


def certificates_of(certs_only: bytes) -> list[bytes]:
    """Return the DER certificates of a certs-only SignedData, in order."""
    return [item.dump() for item in cms.ContentInfo.load(certs_only, strict=True)["content"]["certificates"]]
