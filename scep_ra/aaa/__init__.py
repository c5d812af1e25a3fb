"""Authorization: which device may have a certificate.

`base` is the port, `embedded` asks the device registry in our own store, `registry` finds an implementation by the
`type` that the configuration names. Authentication is not done here.
"""
