"""Text from elsewhere (names of processes and devices, reasons of guests and other hosts) made safe to print.

A terminal obeys the control characters in what it shows, and a log is read line by line: whoever chooses a process's
name must not be able to write a line of the log or move the reader's cursor.
"""


def printable(text: str) -> str:
    r"""The text with an escape (``\x1b``) for every character that is not printed as itself."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    # A lone surrogate stands for a byte that is no UTF-8; it has no encoding of its own.
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
