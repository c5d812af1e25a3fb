"""Revocation: `service` marks certificates as revoked and keeps a current CRL, `crl` writes CRLs and names reasons."""
