"""``fairshare list``: what is known, and how."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from fairshare.cli.catalog import list_command
from fairshare.devices.constants import gpu_names, gpu_spec
from fairshare.virtual.models import virtual_models
from fairshare.virtual.physics import constant_facts


@pytest.mark.parametrize("kind", ["device", "model"])
def test_every_figure_is_listed_with_its_evidence_and_source(kind: str) -> None:
    """With --verbose each figure of a device or model stands beside its tag and source."""
    done = CliRunner().invoke(list_command, [kind, "--verbose"])
    assert done.exit_code == 0
    known = [
        *(gpu_spec(name).facts for name in gpu_names() if kind == "device"),
        *(model.facts for model in virtual_models().values() if kind == "model"),
        *([constant_facts()] if kind == "device" else []),
    ]
    lines = [line.split(maxsplit=1) for line in done.output.splitlines()]
    for facts in known:
        for name, fact in facts.items():
            assert any(
                words[0] == name and fact.evidence.value in words[1] and fact.source in words[1]
                for words in lines
                if len(words) == 2
            )


def test_what_was_never_compared_is_listed_as_unvalidated() -> None:
    """A device without published measurements behind its predictions says so."""
    lines = CliRunner().invoke(list_command, ["devices"]).output.splitlines()
    marked = {line.split()[0]: "unvalidated" in line for line in lines if "virtual:" in line}
    assert not marked.pop("virtual:a100-40")
    assert marked
    assert all(marked.values())
