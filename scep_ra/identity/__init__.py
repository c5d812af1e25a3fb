"""Who the device says it is: identifiers as values, and where a request carries them.

    types      DeviceID, its kinds, `kind:value` text       grammar   one normal form for each kind
    extract    CSR to claims, claims to one identifier      errors    what can be wrong with them

A claim is what the requester wrote; whether it is true, and what it entitles to, is decided elsewhere.
"""
