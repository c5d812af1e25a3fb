"""The core: what is asked, by whom, may it be, then do it. No HTTP, no SQL, no RADIUS.

types           requests and outcomes               errors           our reasons to say no
states          the life of an enrollment           rules            what a profile decides
service         submit and poll                     authorization    the question to AAA
identification  which device, and what proves it    challenges       one-time and static secrets
renewal         may this certificate have a successor
naming          subject and subjectAltName, with name_templates, alternative_names and vouching
issuance        from the intent to the certificate
decisions       the record of each request          refusals         records of refused ones, within bounds
approval        an operator's yes or no             queries          GetCert and GetCRL
lockout         who guessed too often               limits           counters for strangers
"""
