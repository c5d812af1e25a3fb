"""RFC 5280, 5652 and 2986 without I/O: bytes in, values out, and back.

    der           read and write DER            ber           pre-scan with limits, BER to DER
    algorithms    digests, ciphers, policies    keys          signer and decrypter ports, key policy
    names         distinguished names           csr           PKCS#10
    general_names subjectAltName and its like
    certificates  X.509 values                  profiles      what an issued certificate may hold
    issuance      TBS and extension writing     lint          the last look at a certificate
    signed_data   CMS SignedData                enveloped_data  CMS EnvelopedData
    password      PasswordRecipientInfo         oids          every object identifier, once

What only SCEP knows (message types, attributes, failInfo) belongs to `scep_ra.scep`.
"""
