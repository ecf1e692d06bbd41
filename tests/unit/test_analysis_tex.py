"""Whatever names contain, LaTeX and Markdown print it."""

from __future__ import annotations

import re

import pytest

from fairshare.analysis.markdown import escape as markdown
from fairshare.analysis.tex import escape as tex

HOSTILE = (
    r"\input{/etc/passwd}",
    r"\write18{rm -rf /}",
    r"$x^2$ & 100% of #1 _ {~}",
    "}\\end{document}",
    "a\nb%\n\\bye",
    "中文 émigré ☃ \x1b[31m \u202e",
    "--flag 'quoted' \"text\" <b> |",
    "[options] * [x]",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_a_command_to_latex(text: str) -> None:
    """Only commands of our own are left: each stands for one character."""
    written = tex(text)
    ours = re.compile(r"\\(?:text[a-z]+\{\}|[{}$&#%_])|\{[][*]\}|-\{\}")
    rest = ours.sub("", written)
    assert not re.search(r"[\\{}$&#%_~^\n]", rest)
    assert all(c.isascii() or "À" <= c <= "ÿ" for c in written)


def test_what_fonts_lack_is_named_by_its_number() -> None:
    """A name in another script is told apart from others, and stops no compiler."""
    assert tex("中") == "{[}U+4E2D{]}"
    assert tex("é µ † –") == r"é \textmu{} \textdagger{} \textendash{}"


@pytest.mark.parametrize(
    "text",
    [
        "a | b", "<script>alert(1)</script>", "![x](http://e/)", "**bold** `code`", "# head\nline",
        "https://example.org", "www.example.org", "&lt;", "~~x~~", "[^1]", "$x$", "a@b.org",
    ],
)  # fmt: skip
def test_no_text_is_markup_to_markdown(text: str) -> None:
    """A name ends no cell, opens no tag and becomes no link."""
    written = markdown(text)
    assert "\n" not in written
    assert not re.search(r"(?<!\\)(?:[|<>`*_\[\]#&~$@]|://)", written)
    assert re.sub(r"\\(.)", r"\1", written) == text.replace("\n", " ")
