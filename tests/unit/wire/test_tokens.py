"""Whoever holds a token makes the key of each agent, and no agent makes another's."""

from __future__ import annotations

from migrrdma_runtime.wire import tokens


def test_keys_differ_and_are_recognised() -> None:
    token = tokens.new_token()
    one, other = tokens.key_for(token, "one"), tokens.key_for(token, "other")
    assert one != other
    assert tokens.matches(one, tokens.digest(one))
    assert not tokens.matches(other, tokens.digest(one))
