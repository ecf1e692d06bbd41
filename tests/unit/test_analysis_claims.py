"""Tables of figures that somebody states, held against the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.analysis.claims import Judged, judge_table
from fairshare.errors import SpecError

TABLES = Path(__file__).parents[1] / "golden" / "claims" / "two-l4-tables.csv"
HEAD = "name,device,model,weight_bits,servers,concurrency,output_tokens_per_s,prompt_tokens"


def _judge(tmp_path: Path, line: str, head: str = HEAD) -> Judged:
    path = tmp_path / "table.csv"
    path.write_text(f"{head}\n{line}\n")
    return judge_table(path)[0]


def test_two_published_tables_come_out_row_by_row() -> None:
    """Of the two L4 tables five rows are impossible, each for its reason; the P95 is possible."""
    found = {row.claim.name: row for row in judge_table(TABLES)}
    checks = {name: [v.check for v in row.violations] for name, row in found.items()}
    assert checks == {
        "(a) one server: 4 in all": ["throughput"],
        "(a) one server: 4 of each tenant": ["throughput"],
        "(a) P95 of a long prompt: 80 tokens": [],
        "(a) two servers under MPS": ["memory"],
        "(b) one at a time": ["throughput"],
        "(b) 24 at once": ["throughput"],
    }
    texts = {name: str(row.violations[0]) for name, row in found.items() if row.violations}
    assert "80.0 tok/s at most (7.13x over" in texts["(a) one server: 4 in all"]
    assert "160 tok/s at most (3.56x over" in texts["(a) one server: 4 of each tenant"]
    assert "32.12 GB of weights" in texts["(a) two servers under MPS"]
    assert "21.1 tok/s at most (30.3x over" in texts["(b) one at a time"]
    assert "1,356 s at least" in texts["(b) one at a time"]
    assert "506 tok/s at most (6.65x over" in texts["(b) 24 at once"]


def test_smaller_weights_allow_more(tmp_path: Path) -> None:
    """Only 4-bit weights and eight sequences come near the 570 tok/s that were stated."""
    wide = _judge(tmp_path, "x,l4,llama-3-8b,8,1,8,570,")
    small = _judge(tmp_path, "x,l4,llama-3-8b,4,1,8,570,")
    assert [v.check for v in wide.violations] == ["throughput"]
    assert small.violations == ()


def test_servers_read_their_weights_each(tmp_path: Path) -> None:
    """Two servers of four sequences are no faster than one of four: the bandwidth is shared."""
    one = _judge(tmp_path, "x,h200,llama-3-8b,16,1,4,1200,")
    two = _judge(tmp_path, "x,h200,llama-3-8b,16,2,8,1200,")
    more = _judge(tmp_path, "x,h200,llama-3-8b,16,2,8,1400,")
    assert (one.violations, two.violations) == ((), ())
    assert [v.check for v in more.violations] == ["throughput"]


def test_a_warm_cache_shows_in_the_first_token(tmp_path: Path) -> None:
    """Published first tokens of 48.6 ms for 2048 tokens of Qwen3-4B on an A100 are too quick."""
    head = "name,device,model,ttft_s,prompt_tokens"
    row = _judge(tmp_path, "dedicated 2,a100-40,qwen3-4b,0.0486,2048", head)
    assert [v.check for v in row.violations] == ["first token"]
    assert "51.7 ms at least" in str(row.violations[0])


def test_three_figures_of_a_closed_loop_contradict_each_other(tmp_path: Path) -> None:
    """A rate that does not follow from first token and gaps is told, but not called impossible."""
    head = "name,device,model,concurrency,output_tokens_per_s,output_tokens,ttft_s,itl_s"
    good = _judge(tmp_path, "x,h200,qwen3-4b,4,381,256,0.305,0.00934", head)
    bad = _judge(tmp_path, "x,h200,qwen3-4b,4,320,256,0.305,0.00934", head)
    assert good.contradictions == ()
    assert (len(bad.contradictions), bad.violations) == (1, ())


@pytest.mark.parametrize(
    ("head", "line", "said"),
    [
        (HEAD, "x,gtx-1,llama-3-8b,,,,,", "no GPU named"),
        (HEAD, "x,l4,my-own-model,,,,,", "not known"),
        (HEAD, "x,l4,llama-3-8b,,,,fast,", "'fast'"),
        (HEAD, "x,l4,llama-3-8b,,,,-5,", "0 or more"),
        (HEAD, "x,l4,llama-3-8b,,,,nan,", "0 or more"),
        (HEAD, "x,l4,llama-3-8b,,0,,5,", "at least one server"),
        (HEAD, "x,l4,llama-3-8b,,,,5,,,,,9", "more values"),
        ("name,device,model,speed", "x,l4,llama-3-8b,9", "'speed'"),
        ("name,device", "x,l4", "columns are missing"),
        ("", "", "columns are missing"),
    ],
)
def test_a_bad_table_is_told_with_what_is_wrong(
    tmp_path: Path, head: str, line: str, said: str
) -> None:
    """Whatever is wrong in a table is one message, never a traceback."""
    with pytest.raises(SpecError) as error:
        _judge(tmp_path, line, head)
    assert said in str(error.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """A binary file is bad input."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError):
        judge_table(path)
