"""The exception for mistakes that the user can correct, and the shortening of messages to one line."""

import re
import reprlib

LONGEST = 2000


class Shortened(reprlib.Repr):
    """A repr that shortens long values in the middle."""

    def repr_int(self, value: int, level: int) -> str:
        """Return a number's digits; Python refuses to write those of a very long one."""
        return super().repr_int(value, level) if value.bit_length() < 1000 else f"{value.bit_length()} bits"


_shortened = Shortened()
_shortened.maxlevel, _shortened.maxlist, _shortened.maxdict = 4, 20, 20
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 120


class UserError(Exception):
    """A mistake in params, data or a checkpoint. Its text is one line that says what is wrong and what is expected."""

    def __init__(self, text: str):
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """Return text as one line of printable characters; a very long one is cut."""
    text = re.sub(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", text).strip()
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def shown(value: object) -> str:
    """Return a value as a message shows it: its repr, with the middle of a long one left out."""
    return _shortened.repr(value)
