"""The stand-in nvidia-smi's tables, byte for byte as drivers printed them on hardware.

Rows of H100, H200, B200 and RTX PRO 6000: NVIDIA/mig-parted issues 120 and 166,
bigstack-oss/cubecos issue 312, public field notes; of A100: NVIDIA's MIG user guide.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fairshare.virtual import nvidia_smi
from fairshare.virtual.driver import install
from fairshare.virtual.state import STATE_ENV

OLD, NARROW, WIDE = "470.82.01", "550.163.01", "580.105.08"
A100_NARROW = """\
+-----------------------------------------------------------------------------+
| GPU instance profiles:                                                      |
| GPU   Name             ID    Instances   Memory     P2P    SM    DEC   ENC  |
|                              Free/Total   GiB              CE    JPEG  OFA  |
|=============================================================================|
|   0  MIG 1g.5gb        19     7/7        4.75       No     14     0     0   |
|                                                             1     0     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 1g.5gb+me     20     1/1        4.75       No     14     1     0   |
|                                                             1     1     1   |
+-----------------------------------------------------------------------------+
|   0  MIG 1g.10gb       15     4/4        9.62       No     14     1     0   |
|                                                             1     0     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 2g.10gb       14     3/3        9.62       No     28     1     0   |
|                                                             2     0     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 3g.20gb        9     2/2        19.50      No     42     2     0   |
|                                                             3     0     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 4g.20gb        5     1/1        19.50      No     56     2     0   |
|                                                             4     0     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 7g.40gb        0     1/1        39.25      No     98     5     0   |
|                                                             7     1     1   |
+-----------------------------------------------------------------------------+
"""
H100_WIDE = """\
+-------------------------------------------------------------------------------+
| GPU instance profiles:                                                        |
| GPU   Name               ID    Instances   Memory     P2P    SM    DEC   ENC  |
|                                Free/Total   GiB              CE    JPEG  OFA  |
|===============================================================================|
|   0  MIG 1g.10gb         19     7/7        9.75       No     16     1     0   |
|                                                               1     1     0   |
+-------------------------------------------------------------------------------+
|   0  MIG 1g.10gb+me      20     1/1        9.75       No     16     1     0   |
|                                                               1     1     1   |
+-------------------------------------------------------------------------------+
|   0  MIG 1g.20gb         15     4/4        19.62      No     26     1     0   |
|                                                               1     1     0   |
+-------------------------------------------------------------------------------+
|   0  MIG 2g.20gb         14     3/3        19.62      No     32     2     0   |
|                                                               2     2     0   |
+-------------------------------------------------------------------------------+
|   0  MIG 3g.40gb          9     2/2        39.50      No     60     3     0   |
"""
H200_NARROW = """\
|   0  MIG 1g.18gb       19     7/7        16.00      No     16     1     0   |
|                                                             1     1     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 1g.18gb+me    20     1/1        16.00      No     16     1     0   |
|                                                             1     1     1   |
+-----------------------------------------------------------------------------+
|   0  MIG 1g.35gb       15     4/4        32.25      No     26     1     0   |
|                                                             1     1     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 2g.35gb       14     3/3        32.25      No     32     2     0   |
|                                                             2     2     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 3g.71gb        9     2/2        69.50      No     60     3     0   |
|                                                             3     3     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 4g.71gb        5     1/1        69.50      No     64     4     0   |
|                                                             4     4     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 7g.141gb       0     1/1        139.75     No     132    7     0   |
|                                                             8     7     1   |
+-----------------------------------------------------------------------------+
"""
B200_NARROW = """\
|   0  MIG 1g.23gb       19     7/7        22.00      No     18     1     0   |
|   0  MIG 1g.45gb       15     4/4        44.25      No     30     1     0   |
|   0  MIG 2g.45gb       14     3/3        44.25      No     36     2     0   |
"""
RTX_WIDE = """\
|   0  MIG 1g.24gb         14     4/4        23.12      No     46     1     1   |
|   0  MIG 1g.24gb+me      21     1/1        23.12      No     46     1     1   |
|   0  MIG 1g.24gb+gfx     47     4/4        23.12      No     46     1     1   |
|   0  MIG 1g.24gb+me.all  65     1/1        23.12      No     46     4     4   |
|   0  MIG 1g.24gb-me      67     4/4        23.12      No     46     0     0   |
|   0  MIG 2g.48gb          5     2/2        46.50      No     94     2     2   |
|   0  MIG 2g.48gb+gfx     35     2/2        46.50      No     94     2     2   |
|   0  MIG 2g.48gb+me.all  64     1/1        46.50      No     94     4     4   |
|   0  MIG 2g.48gb-me      66     2/2        46.50      No     94     0     0   |
|   0  MIG 4g.96gb          0     1/1        93.38      No     188    4     4   |
"""

Run = Callable[..., list[str]]


@pytest.fixture
def smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], Run]:
    """Installs a GPU with a driver; what it gives runs the stand-in and returns the lines."""
    monkeypatch.setenv(STATE_ENV, str(tmp_path))

    def on(gpu: str, driver: str) -> Run:
        install(tmp_path, gpu, driver_version=driver)

        def run(*arguments: str) -> list[str]:
            assert nvidia_smi.main(list(arguments)) == 0
            return capsys.readouterr().out.splitlines()

        return run

    return on


@pytest.mark.parametrize(
    ("gpu", "driver", "table"),
    [
        ("a100-40", NARROW, A100_NARROW),
        ("h100-80", WIDE, H100_WIDE),
        ("h200", NARROW, H200_NARROW),
    ],
)
def test_profile_tables_are_the_hardwares(
    smi: Callable[[str, str], Run], gpu: str, driver: str, table: str
) -> None:
    """``-lgip`` holds the published stretch as it is."""
    lines = smi(gpu, driver)("mig", "-lgip")
    assert table in "\n".join([*lines, ""])
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("gpu", "driver", "rows"),
    [("b200", NARROW, B200_NARROW), ("rtx-pro-6000", WIDE, RTX_WIDE)],
)
def test_profile_rows_are_the_hardwares(
    smi: Callable[[str, str], Run], gpu: str, driver: str, rows: str
) -> None:
    """Of some GPUs only the first lines of the rows were published."""
    lines = smi(gpu, driver)("mig", "-lgip")
    wanted = rows.splitlines()
    assert [line for line in lines if line in wanted] == wanted


@pytest.mark.parametrize(
    ("driver", "row"),
    [
        (OLD, "|   0  MIG 3g.20gb       9        2          0:4     |"),
        (NARROW, "|   0  MIG 3g.20gb          9        2          0:4     |"),
        (WIDE, "|   0  MIG 3g.20gb            9        2          0:4     |"),
    ],
)
def test_gpu_instances_in_three_widths(
    smi: Callable[[str, str], Run], driver: str, row: str
) -> None:
    """``-lgi`` is 54, 57 or 59 columns wide, by driver."""
    run = smi("a100-40", driver)
    run("-mig", "1")
    run("mig", "-cgi", "9:0")
    lines = run("mig", "-lgi")
    row = row.replace("  2  ", f"  {_id(lines)}  ")  # the number is not what is tested here
    assert lines[5] == row
    assert {len(line) for line in lines} == {len(row)}


def _id(lines: list[str]) -> str:
    return lines[5].split()[5]


def test_compute_instances_with_and_without_placement(smi: Callable[[str, str], Run]) -> None:
    """The two forms of ``-lci``."""
    run = smi("a100-40", OLD)
    run("-mig", "1")
    run("mig", "-cgi", "5", "-C")
    old = run("mig", "-lci")
    assert old[6] == "|   0      1       MIG 4g.20gb          3         0     |"
    assert {len(line) for line in old} == {57}
    run = smi("a100-40", WIDE)
    run("-mig", "1")
    run("mig", "-cgi", "5", "-C")
    new = run("mig", "-lci")
    assert new[6] == "|   0      1       MIG 4g.20gb          3         0          0:4     |"
    assert {len(line) for line in new} == {70}


def test_compute_profiles_name_the_one_that_fills_the_instance(
    smi: Callable[[str, str], Run],
) -> None:
    """``-lcip`` as on an A100, with a star at the default; a used instance has none free."""
    run = smi("a100-40", WIDE)
    run("-mig", "1")
    run("mig", "-cgi", "5")
    assert run("mig", "-lcip", "-gi", "1")[6:] == [
        "|   0      1       MIG 1c.4g.20gb       0      4/4           14        2     0     0   |",
        "|                                                                      4     0         |",
        "+--------------------------------------------------------------------------------------+",
        "|   0      1       MIG 2c.4g.20gb       1      2/2           28        2     0     0   |",
        "|                                                                      4     0         |",
        "+--------------------------------------------------------------------------------------+",
        "|   0      1       MIG 4g.20gb          3*     1/1           56        2     0     0   |",
        "|                                                                      4     0         |",
        "+--------------------------------------------------------------------------------------+",
    ]
    run("mig", "-cci")
    assert "MIG 4g.20gb          3*     0/1 " in "\n".join(run("mig", "-lcip"))


def test_instances_are_listed_as_published(smi: Callable[[str, str], Run]) -> None:
    """``-lgipp`` and ``-L`` of A100 and H100."""
    run = smi("a100-40", WIDE)
    assert run("mig", "-lgipp") == [
        "GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1",
        "GPU  0 Profile ID 20 Placements: {0,1,2,3,4,5,6}:1",
        "GPU  0 Profile ID 15 Placements: {0,2,4,6}:2",
        "GPU  0 Profile ID 14 Placements: {0,2,4}:2",
        "GPU  0 Profile ID  9 Placements: {0,4}:4",
        "GPU  0 Profile ID  5 Placement : {0}:4",
        "GPU  0 Profile ID  0 Placement : {0}:8",
    ]
    run = smi("h100-80", WIDE)
    run("-mig", "1")
    run("mig", "-cgi", "14,19", "-C")
    lines = run("-L")
    assert lines[0].startswith("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-")
    assert lines[1].startswith("  MIG 2g.20gb     Device  0: (UUID: MIG-")
    assert lines[2].startswith("  MIG 1g.10gb     Device  1: (UUID: MIG-")
    run = smi("a100-40", OLD)
    run("-mig", "1")
    run("mig", "-cgi", "9", "-C")
    assert run("-L")[1].startswith("  MIG 3g.20gb Device 0: (UUID: MIG-")
