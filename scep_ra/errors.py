"""The root of every exception this package raises on purpose.

    ScepRaError
    ├── ConfigurationError      the operator's file or command line is wrong
    ├── BackendError            AAA, CA or storage did not do its part
    │   ├── Unavailable         it may work later: ask again
    │   ├── Misconfigured       it will not work until somebody changes something
    │   └── Refused             it works, and it said no
    ├── pki.errors.PKIError                     bytes or signatures that do not hold
    ├── scep.errors.ProtocolError               the peer broke a wire rule
    ├── identity.errors.IdentityError           a request does not name one device
    ├── enrollment.errors.EnrollmentError       a rule of ours said no
    ├── enrollment.approval.ApprovalError       an operator's decision cannot be carried out
    ├── radius.errors.RadiusError               octets that are no RADIUS packet, or prove nothing
    ├── revocation.service.RevocationError      a certificate cannot be revoked, or no CRL or OCSP answer be had
    ├── headend.sync.TooManyDeletions           AAA rejects so many devices that nothing was done
    ├── storage.audit_chain.BrokenAuditLog      the audit log is not what was written
    ├── web.connections.TooManyConnections      a peer has as many connections as it may
    └── cli.*                                   single commands' own: not found, not allowed, failed

Misuse of our own API raises TypeError or ValueError, never one of these.
"""


class ScepRaError(Exception):
    """Base of all errors that a caller is expected to handle."""


class ConfigurationError(ScepRaError):
    """Name the file, the key and the mend; raised before anything is served."""


class BackendError(ScepRaError):
    """Base of what can go wrong behind the ports (AAA, CA, storage)."""


class Unavailable(BackendError):
    """The backend gave no answer; the same call may succeed later."""


class Misconfigured(BackendError):
    """The backend answered that our set-up is wrong; retrying is pointless."""


class Refused(BackendError):
    """The backend understood and declined."""
