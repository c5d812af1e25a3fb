"""What a configuration allows and an operator should know to be weak or unfinished, a sentence each.

What is wrong, and so refused, is found by `config_file`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from scep_ra.config import Config, ProfileConfig
from scep_ra.config_aaa import AcceptAllConfig, AuthorizerConfig, HttpConfig, LdapConfig, RadiusConfig

_FORGERY: Final = "who is on the path can have a no turned into a yes (BlastRADIUS)"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_WEAKENING: Final = {
    "allow_sha1": "collisions of SHA-1 are practical; keep it to the clients that need it",
    "allow_triple_des": "3DES has blocks of 64 bits; keep it to the clients that need it",
    "insecure_des_and_md5": "single DES and MD5 are broken; anybody on the path may read or forge requests",
}


def warnings_about(config: Config) -> list[str]:
    """Return the sentences, each beginning with the key that it is about."""
    return list(_warnings(config))


def _warnings(config: Config) -> Iterator[str]:
    for name, profile in config.profile.items():
        yield from (f"profile.{name}.{sentence}" for sentence in _about_profile(profile))
    for name, authorizer in config.aaa.items():
        yield from (f"aaa.{name}{sentence}" for sentence in _about_authorizer(authorizer))
    for name, trust in config.trust.items():
        if trust.allow_sha1:
            yield f"trust.{name}.allow_sha1 is on: collisions of SHA-1 are practical; keep it to the CAs that need it"
    for name, headend in config.headend.items():
        if not headend.require_message_authenticator:
            yield f"headend.{name}.require_message_authenticator is off: {_FORGERY}"
    if not config.server.public_url and config.server.bind not in _LOOPBACK:
        yield "server.public_url is empty: certificates will point to their CRL at http://BIND:PORT"


def _about_profile(profile: ProfileConfig) -> Iterator[str]:
    for option, consequence in _WEAKENING.items():
        if getattr(profile.algorithms, option):
            yield f"algorithms.{option} is on: {consequence}"
    if profile.challenge == "static":
        yield 'challenge is "static": whoever learns the secret can ask in the name of any registered device'
    if profile.challenge == "anonymous":
        yield 'challenge is "anonymous": whoever knows the ID of a device gets its certificate'
    if profile.subject_unchecked:
        yield "subject_unchecked is on: devices choose their own names, those of others among them"


def _about_authorizer(authorizer: AuthorizerConfig) -> Iterator[str]:
    # Without URLs: that of a webhook may hold its secret.
    match authorizer:
        case AcceptAllConfig():
            yield ' is "accept-all": EVERY DEVICE IS AUTHORIZED; this is for a lab'
        case HttpConfig(insecure_plaintext=True):
            yield ".insecure_plaintext is on: whoever is on the way can say yes in the service's place"
        case LdapConfig(insecure_plaintext=True):
            yield ".insecure_plaintext is on: whoever is on the way reads the password, and says who may enroll"
        case RadiusConfig(require_message_authenticator="no"):
            yield f'.require_message_authenticator is "no": {_FORGERY}'
        case _:
            return
