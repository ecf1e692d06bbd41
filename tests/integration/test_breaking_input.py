"""What a user can get wrong on the command line that no schema catches."""

from __future__ import annotations

import pytest

from tests.workplace import Workplace

RUN = ("matrix", "brief.yaml", "--device", "virtual", "--modes", "logical", "--no-report")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*RUN, "--model", ""), 2, "'--model': it is empty"),
        ((*RUN, "--device", " "), 2, "'--device': it is empty"),
        ((*RUN, "--seed", "9" * 30), 2, "not in the range"),
        ((*RUN, "--model", "\udcff"), 2, "not valid UTF-8"),
        ((*RUN, "--output-dir", "a" * 300), 2, "File name too long"),
        ((*RUN, "--engine-arg", "no_such=1"), 2, "unrecognized arguments: --no-such"),
        ((*RUN, "--engine-arg", "max_num_seqs=many"), 2, "argument --max-num-seqs"),
        ((*RUN, "--python", "/nonexistent"), 3, "/nonexistent does not exist"),
        (("matrix", f"./{'a' * 300}.yaml"), 2, "File name too long"),
        (("matrix", "./tmp.yaml/"), 2, "does not exist"),
        (("validate", "bomb.yaml"), 2, "says too much"),
    ],
)
def test_what_can_be_known_to_be_wrong_is_said_before_the_start(
    workplace: Workplace, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """One message and the right exit code; no server is started for it."""
    bomb = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    workplace.write("bomb.yaml", f"a0: &a0 [x]\n{bomb}")
    done = workplace.run(*arguments)
    assert done.returncode == code, done.stdout
    assert message in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout
    assert "ready after" not in done.stdout


def test_a_protocol_that_the_launcher_does_not_speak_is_wrong_input(workplace: Workplace) -> None:
    """A tenant's api is held against the launcher before any server is started."""
    text = (workplace.path / "brief.yaml").read_text()
    workplace.write("brief.yaml", text.replace("- name: chat", "- name: chat\n    api: tgi"))
    done = workplace.run(*RUN)
    assert done.returncode == 2
    assert "asks for api tgi, which launcher virtual does not speak" in done.stdout
    assert "it speaks completions, chat" in done.stdout


def test_a_dataset_with_an_impossible_name_is_wrong_input(workplace: Workplace) -> None:
    """A name that no file system takes is a message, not a traceback."""
    text = (workplace.path / "brief.yaml").read_text()
    old = "{kind: synthetic, tokens: {kind: fixed, tokens: 16}}"
    assert old in text
    workplace.write("brief.yaml", text.replace(old, f"{{kind: jsonl, path: {'a' * 300}}}"))
    done = workplace.run(*RUN)
    assert done.returncode == 2
    assert "File name too long" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout


def test_a_share_of_nothing_is_infeasible_in_its_modes_only(workplace: Workplace) -> None:
    """A share too small for any server does not keep the other modes from running."""
    text = (workplace.path / "brief.yaml").read_text()
    workplace.write("brief.yaml", text.replace("- name: chat", "- name: chat\n    share: 1e-12"))
    done = workplace.run("plan", "brief.yaml", "--device", "virtual", "--modes", "logical,mps")
    assert done.returncode == 0
    assert "server all: 100%" in done.stdout
    assert "too little for" in " ".join(done.stdout.split())
