"""HTTP: the only package that uses aiohttp's server.

connections    how many connections, how slow each may be
listener       aiohttp under those limits; the drain at the end
http_log       malformed HTTP as an event instead of a traceback
crypto_pool    threads for RSA and EC work, with a bounded queue
paths          from a request's path to a profile
scep           the SCEP endpoint; errors: what becomes of a failure on the wire
repository     CRLs and CA certificates for whoever fetches them
health         probes
"""
