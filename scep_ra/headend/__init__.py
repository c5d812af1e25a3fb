"""The other direction: what headends ask us, and what we tell them.

`access` decides whether a device may connect; `server` answers by RADIUS, with `access_requests` and `accounting`.
`disconnect` cuts a device off, `outbox` sends what that has to tell others, to headends by `dae` (RFC 5176) and to
webhooks by `webhooks`; `sync` finds out which devices AAA has let go of. Which device may enroll is not decided here.
"""
