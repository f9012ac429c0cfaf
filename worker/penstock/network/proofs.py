"""Proofs of knowing the job's token: HMAC-SHA256 over facts that no other message has. Pure."""

from __future__ import annotations

import hashlib
import hmac

NONCE_BYTES = 32


def prove(token: bytes, role: str, *facts: bytes | int) -> bytes:
    """What shows that its sender knows the token.

    `role` is who speaks, so that nobody's proof can be sent back as one's own; `facts` are both
    nonces and what the sender claims about itself.
    """
    texts = (role.encode(), *(str(f).encode() if isinstance(f, int) else f for f in facts))
    message = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
    return hmac.digest(token, message, hashlib.sha256)


def is_proof(given: bytes, expected: bytes) -> bool:
    """Whether they are equal, in a time that does not tell how much of it was right."""
    return hmac.compare_digest(given, expected)
