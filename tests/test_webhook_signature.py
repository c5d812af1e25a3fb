"""Claims about signatures of webhooks."""

from __future__ import annotations

import pytest

from scep_ra.errors import Misconfigured
from scep_ra.webhook_signature import sign_body


def test_a_signature_is_the_hmac_of_the_body() -> None:
    """The first example of RFC 4231, in hexadecimal; its key in base64."""
    expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    assert sign_body(b"Hi There", "CwsLCwsLCwsLCwsLCwsLCwsLCws=") == expected


@pytest.mark.parametrize("secret", ["hunter2!", "aGk", "gr\u00fcn"])
def test_a_secret_that_is_not_base64_is_never_quoted(secret: str) -> None:
    """Somebody has put the wrong thing into the file."""
    with pytest.raises(Misconfigured, match="openssl rand -base64 32") as caught:
        sign_body(b"", secret)
    assert secret not in str(caught.value)
