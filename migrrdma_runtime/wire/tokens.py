"""Migration tokens: who holds one may restore, and redirect the connections of what is restored.

The source's agent draws a token when it suspends a container and gives it to nobody but the checkpoint's
manifest. From it a key is derived for each agent that will have to recognise its holder; that agent is given
only the key's digest. So no partner can pass for the holder, neither towards the source nor towards another
partner, not even after it has been shown its own key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets


def new_token() -> str:
    """A token: 256 random bits, in hexadecimal."""
    return secrets.token_hex(32)


def new_migration() -> str:
    """A migration's name: not a secret, and never used twice."""
    return secrets.token_hex(8)


def key_for(token: str, agent: str) -> str:
    """What the token's holder shows to the agent of that name."""
    return hmac.new(bytes.fromhex(token), f"migrrdma key for {agent}".encode(), hashlib.sha256).hexdigest()


def digest(key: str) -> str:
    """What an agent keeps to recognise its key."""
    return hashlib.sha256(bytes.fromhex(key)).hexdigest()


def matches(key: str, expected_digest: str) -> bool:
    """Whether this is the key, in a time that does not tell how nearly."""
    return hmac.compare_digest(digest(key), expected_digest)
