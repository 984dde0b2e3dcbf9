"""JSON from outside, read strictly: what Python's own reader takes beyond the standard breaks whoever writes it on.

Nothing heavy is imported: the OCI runtime reads a checkpoint's manifest with it.
"""

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse(data: bytes) -> "Any":
    """The value of a text in UTF-8; `ValueError` for anything else.

    Refused are NaN and infinities, which no other reader takes, and halves of surrogate pairs, which no file name, log
    or database takes.
    """
    try:
        text = data.decode()
        value = json.loads(text, parse_constant=_refuse)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")
