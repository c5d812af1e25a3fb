"""RADIUS on the wire: packets (RFC 2865, 2866, 5176) and a client that waits for their answers.

`packets` knows octets and secrets, `transport` and `sockets` UDP; `dictionary` names the attributes. What an answer
means is not decided here.
"""
