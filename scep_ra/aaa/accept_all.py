"""Authorize every device: for a lab that tries clients, and for nothing else."""

from __future__ import annotations

from scep_ra.aaa.base import Accept, AccessRequest, Decision


class AcceptAll:
    """An Authorizer that always says yes; the server says so aloud at start."""

    async def authorize(self, _request: AccessRequest) -> Decision:
        """Return Accept."""
        return Accept()

    async def check(self) -> None:
        """Find nothing wrong."""
