"""Finding processes by the label in their environment."""

from __future__ import annotations

import os
import secrets
import subprocess

from fairshare.processes.identity import ProcessIdentity, identify
from fairshare.processes.labelled import (
    OWNER_LABEL,
    RUN_LABEL,
    SLOT_LABEL,
    labelled,
    labels,
    owner_label,
    owner_of,
)


def test_a_process_is_found_by_run_and_by_slot() -> None:
    """A label finds its own process, not one of another run or slot, and none without a label."""
    run_id = secrets.token_hex(8)
    marked = {**os.environ, RUN_LABEL: run_id, SLOT_LABEL: "a/1"}
    with (
        subprocess.Popen(["sleep", "60"], env=marked) as ours,
        subprocess.Popen(["sleep", "60"]) as foreign,
    ):
        identity = identify(ours.pid)
        assert labelled(run_id) == [identity]
        assert labelled(run_id, "a/1") == [identity]
        assert labelled(run_id, "b/2") == []
        assert labelled("another") == []
        assert identity in labelled()
        assert identify(foreign.pid) not in labels()
        ours.kill()
        foreign.kill()


def test_the_owner_is_read_back_from_its_label() -> None:
    """The owner survives the way through an environment variable; nonsense there is no owner."""
    owner = ProcessIdentity(12, 345, "boot")
    assert owner_of({OWNER_LABEL: owner_label(owner)}) == owner
    for value in ("", "1:2", "x:2:boot", "1:2:3:4"):
        assert owner_of({OWNER_LABEL: value}) is None
    assert owner_of({}) is None
