"""A small LDAPv3 client (RFC 4511): enough to bind and to find an entry.

`messages` and `filters` turn questions into octets and octets into answers, `connection` carries them. It stands on
asyncio and ssl of the standard library, because the handshake for ldaps:// in libldap 2.5 blocks its thread beyond
every time limit, and under bonsai 1.5 the whole process: a directory that stands still would stop the server with it.
Nothing here knows devices.
"""
