"""Text for LaTeX: whatever it contains, it is set and not obeyed."""

from __future__ import annotations

from fairshare.analysis.table import visible

_KNOWN = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "-{}",  # no dashes of two hyphens: a flag is to be read as it is typed
    "[": "{[}",  # else a line that begins with one would be an option of the line break before
    "]": "{]}",
    "*": "{*}",
    "µ": r"\textmu{}",
    "†": r"\textdagger{}",
    "×": r"\texttimes{}",
    "±": r"\textpm{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\textellipsis{}",
    "\n": " ",
    "\N{REPLACEMENT CHARACTER}": "?",
}


class Tex(str):
    """Text that is LaTeX already."""

    __slots__ = ()


def escape(text: str) -> Tex:
    """``text`` such that LaTeX prints it; what its fonts lack is named by its number."""
    return Tex("".join(_escaped(character) for character in visible(text)))


def _escaped(character: str) -> str:
    if character in _KNOWN:
        return _KNOWN[character]
    # ASCII, and the letters with accents that every T1 font has.
    if character.isascii() or ("À" <= character <= "ÿ" and character not in "×÷"):
        return character
    return f"{{[}}U+{ord(character):04X}{{]}}"
