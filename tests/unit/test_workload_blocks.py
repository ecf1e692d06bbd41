"""Equal hashes are equal prompt blocks, so that a prefix cache sees what the trace says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from fairshare.spec.scenario import Tenant
from fairshare.workload.contents import Adjustments
from fairshare.workload.prompts import Vocabulary
from fairshare.workload.requests import PlannedRequest, planned_requests

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class _Words:
    """A tokenizer with one token for each word of two letters."""

    special_ids: frozenset[int] = frozenset()

    def encode(self, text: str) -> list[int]:
        return [LETTERS.index(w[0]) * 26 + LETTERS.index(w[1]) for w in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(LETTERS[i // 26 % 26] + LETTERS[i % 26] for i in ids)


VOCABULARY = Vocabulary(500, frozenset(), _Words())


def _plan(folder: Path, rows: list[tuple[int, list[int]]], **changes: Any) -> list[PlannedRequest]:
    lines = (
        {"timestamp": k, "input_length": length, "output_length": 4, "hash_ids": ids}
        for k, (length, ids) in enumerate(rows)
    )
    (folder / "m.jsonl").write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    arrival = {"kind": "trace", "path": "m.jsonl", "block_tokens": 20}
    arrival |= {key: changes.pop(key) for key in ("token_scale",) if key in changes}
    tenant = Tenant.model_validate({"name": changes.pop("name", "a"), "arrival": arrival})
    given: dict[str, Any] = {
        "cell_seed": 1,
        "horizon_s": 20.0,
        "window_start_s": 0.0,
        "window_s": 20.0,
        "load_scale": 1.0,
        "vocabulary": VOCABULARY,
        "base_dir": folder,
    }
    return list(islice(planned_requests(tenant, **(given | changes)), None))


ROWS = [(50, [1, 2, 3]), (60, [1, 2, 4]), (30, [9, 2]), (50, [1, 2, 3]), (70, [1])]


def _ids(plan: list[PlannedRequest]) -> list[list[int]]:
    return [request.prompt_ids or [] for request in plan]


def test_prompts_share_as_many_tokens_as_blocks(tmp_path: Path) -> None:
    """The same hashes in front are the same tokens; another hash is other tokens."""
    first, second, third, again, _ = _ids(_plan(tmp_path, ROWS))
    assert [len(first), len(second), len(third)] == [50, 60, 30]
    assert first[:40] == second[:40]
    assert first[40:50] != second[40:50]
    assert third[:20] != first[:20]
    assert third[20:30] == first[20:30]
    assert again == first


def test_what_the_blocks_do_not_cover_is_random(tmp_path: Path) -> None:
    """A prompt longer than its blocks has its length all the same, and an end of its own."""
    one, two = _ids(_plan(tmp_path, [(70, [1]), (70, [1])]))
    assert len(one) == len(two) == 70
    assert one[:20] == two[:20]
    assert one[20:36] != two[20:36]


def test_blocks_are_the_same_as_text(tmp_path: Path) -> None:
    """Where prompts are text, equal hashes are equal words, and lengths are exact."""
    plan = _plan(tmp_path, ROWS, as_text=True)
    texts = [(request.prompt_text or "").split() for request in plan]
    assert [len(words) for words in texts] == [50, 60, 30, 50, 70]
    assert texts[0][:40] == texts[1][:40]
    assert texts[0] == texts[3]
    assert texts[0][40:] != texts[1][40:50]


def test_blocks_are_the_cells_and_no_tenants(tmp_path: Path) -> None:
    """Tenants share what the trace shares; another repetition has other blocks."""
    one = _ids(_plan(tmp_path, ROWS))
    assert _ids(_plan(tmp_path, ROWS, name="b"))[0] == one[0]
    assert _ids(_plan(tmp_path, ROWS, cell_seed=2))[0] != one[0]


def test_shorter_tokens_keep_the_shares(tmp_path: Path) -> None:
    """With token_scale a block shrinks as its prompt does; a cut prompt keeps its beginning."""
    first, second, *_ = _ids(_plan(tmp_path, ROWS, token_scale=0.5))
    assert [len(first), len(second)] == [25, 30]
    assert first[:20] == second[:20]
    assert first[20:25] != second[20:25]
    adjustments = Adjustments()
    cut, *_ = _ids(_plan(tmp_path, ROWS, max_total_tokens=30, adjustments=adjustments))
    assert len(cut) == 26
    assert cut == _ids(_plan(tmp_path, ROWS))[0][:26]
    assert adjustments.clipped == 5
