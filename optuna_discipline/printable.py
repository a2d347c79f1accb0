"""Text of a study on a terminal: shown as text, never obeyed as an escape code."""


def printable(text: str) -> str:
    r"""Return text with all that a terminal would obey or hide (escape codes, bidi marks, line ends) written out.

    >>> printable("lr\x1b[2J, été")
    'lr\\x1b[2J, été'
    """
    if text.isprintable():  # as nearly always, in a fiftieth of the time
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in text
    )
