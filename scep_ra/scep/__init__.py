"""RFC 8894, both sides, sans-IO: no socket, no clock, no file; time and randomness come in as arguments.

terms         the RFC's numbers and words        errors        what a peer can do wrong
http_binding  query string and body <-> call     discovery     GetCACaps, GetCACert, whom to trust
message       PKIMessage <-> DER                 policy        which algorithms are spoken
server        call -> event, outcome -> reply    client        wish -> call, reply -> result
explain       captured octets -> words
"""
