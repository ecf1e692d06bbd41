"""JSONL and ShareGPT files are read as they are, and what is wrong with one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.errors import SpecError
from fairshare.workload.files import resolve
from fairshare.workload.jsonl import read_jsonl
from fairshare.workload.sharegpt import read_conversations, read_sharegpt

CHAT = '{"conversations": [{"from": "%s", "value": "%s"}, {"from": "gpt", "value": "yes"}]}'


def _write(folder: Path, text: str) -> Path:
    path = folder / "data.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl_prompts_keep_text_and_length(tmp_path: Path) -> None:
    """Blank lines and further keys do no harm; a length is optional."""
    path = _write(tmp_path, '{"prompt": "wärum?", "max_tokens": 5}\n\n{"prompt": "b", "id": 3}\n')
    assert [(p.text, p.max_tokens, p.where.line) for p in read_jsonl(path)] == [
        ("wärum?", 5, 1),
        ("b", None, 3),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"prompt": "a"}\n{"prompt": "b"\n', r"data\.json:2:\d+: not valid JSON"),
        ('{"prompt": "a"}\n["b"]\n', r"data\.json:2: .*not an object with a prompt"),
        ('{"text": "a"}\n', r"data\.json:1: .*not an object with a prompt"),
        ('{"prompt": 3}\n', r"data\.json:1: prompt is not a text"),
        ('{"prompt": ""}\n', r"data\.json:1: prompt is not a text"),
        ('{"prompt": "a", "max_tokens": 0}\n', r"data\.json:1: max_tokens is 0"),
        ('{"prompt": "a", "max_tokens": true}\n', r"data\.json:1: max_tokens is True"),
        ('{"prompt": "a", "max_tokens": "9"}\n', r"data\.json:1: max_tokens is '9'"),
        ("\n \n", "holds no prompts"),
    ],
)
def test_bad_jsonl_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    """Each mistake ends in one message that says file and line."""
    with pytest.raises(SpecError, match=complaint):
        read_jsonl(_write(tmp_path, text))


def test_jsonl_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text are a message, not a traceback."""
    path = tmp_path / "data.json"
    path.write_bytes(b'{"prompt": "\xff\xfe"}\n')
    with pytest.raises(SpecError, match=r"data\.json:1:\d+: not valid JSON"):
        read_jsonl(path)


def test_sharegpt_takes_the_first_human_turn(tmp_path: Path) -> None:
    """Conversations that begin otherwise are left out."""
    dull = '{"conversations": []}'
    talks = ", ".join([CHAT % ("human", "why?"), CHAT % ("gpt", "no"), CHAT % ("user", ""), dull])
    (prompt,) = read_sharegpt(_write(tmp_path, f"[{talks}]"))
    assert (prompt.text, prompt.reply) == ("why?", "yes")


def test_a_conversation_goes_on_while_turns_alternate(tmp_path: Path) -> None:
    """What follows two turns of the same side, or a turn without words, is left out."""
    turns = ["human", "gpt", "human", "gpt", "gpt", "human"]
    talk = ", ".join(f'{{"from": "{who}", "value": "{n}"}}' for n, who in enumerate(turns))
    path = _write(tmp_path, f'[{{"conversations": [{talk}]}}]')
    (found,) = read_conversations(path)
    assert [(prompt.text, prompt.reply) for prompt in found] == [("0", "1"), ("2", "3")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[\n{"conversations": [}]', r"data\.json:2:\d+: not valid JSON"),
        ('{"conversations": []}', r"data\.json:1:1: .*not a list of conversations"),
        ("[3]", r"conversation 1 has no list"),
        ('[{"conversations": [{"from": "human"}]}]', r"conversation 1 has no list"),
        ("[]", "none of the 0 conversations"),
        ('[{"conversations": []}]', "none of the 1 conversations"),
    ],
)
def test_bad_sharegpt_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    """Each mistake ends in one message that says where to look."""
    with pytest.raises(SpecError, match=complaint):
        read_sharegpt(_write(tmp_path, text))


@pytest.mark.parametrize("read", [read_jsonl, read_sharegpt])
def test_a_missing_dataset_is_refused(tmp_path: Path, read: type) -> None:
    """The message names the path, and what paths are relative to."""
    with pytest.raises(SpecError, match=r"nothing\.json: .*does not exist") as caught:
        read(tmp_path / "nothing.json")
    assert "relative to the scenario" in (caught.value.hint or "")


def test_paths_are_relative_to_the_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative, absolute and home paths mean what they mean to a person."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve("data/p.jsonl", tmp_path) == tmp_path / "data/p.jsonl"
    assert resolve("/data/p.jsonl", tmp_path) == Path("/data/p.jsonl")
    assert resolve("~/p.jsonl", tmp_path) == Path("/home/somebody/p.jsonl")
