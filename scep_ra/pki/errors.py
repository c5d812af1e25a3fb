"""What the pure PKI code raises; no wire or HTTP knowledge (scep.errors maps these to failInfo)."""

from scep_ra.errors import ScepRaError


class PKIError(ScepRaError):
    """Base of all errors about bytes, keys and signatures."""


class MalformedData(PKIError):
    """The octets are not the ASN.1 structure they should be, or exceed a limit."""


class AlgorithmRefused(PKIError):
    """A digest, signature, cipher, key transport or key is unknown or not allowed by policy."""


class SignatureInvalid(PKIError):
    """A signature, a message digest or a proof of possession does not verify."""


class DecryptionFailed(PKIError):
    """An envelope did not open; deliberately without any reason (see cms.open_envelope)."""
