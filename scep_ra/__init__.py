"""A SCEP (RFC 8894) registration authority; `scep_ra.app` wires the parts, docs/architecture.md maps them."""

__version__ = "0.1.0"
