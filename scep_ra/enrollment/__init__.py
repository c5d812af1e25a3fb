"""The core: what is asked, by whom, may it be, then do it. No HTTP, no SQL, no RADIUS.

types       requests and outcomes           errors      our reasons to say no
states      the life of an enrollment       challenges  one-time secrets
service     submit and poll                 renewal     may this certificate have a successor
queries     GetCert and GetCRL
"""
