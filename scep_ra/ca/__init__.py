"""Certification authorities: who signs.

`base` is the port, `local` signs with a key at hand, `registry` finds an implementation by the `type` that the
configuration names. `hierarchy` makes a new CA and RA, `directory` keeps their files.
"""
