"""Nothing that somebody else has chosen can move a terminal's cursor or begin a line of the log."""

import pytest

from migrrdma_runtime.base.escaping import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rping", "rping"),
        ("größe 12 × 3 …", "größe 12 × 3 …"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("one\nERROR two", "one\\nERROR two"),
        ("\x9b1m", "\\x9b1m"),
        ("abc\u202edef", "abc\\u202edef"),
        ("not UTF-8: \udcff", "not UTF-8: \\udcff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_is_not_printed_as_itself_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()
