"""Reading the tables of nvidia-smi in the forms that different drivers print."""

from __future__ import annotations

from fairshare.sharing.nvidia_smi import (
    ComputeInstance,
    GpuInstance,
    ListedPlacements,
    ListedProfile,
    MigDevice,
    parse_compute_instances,
    parse_gpu_instances,
    parse_mig_devices,
    parse_placements,
    parse_profiles,
)

PROFILES_79 = """\
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
|   0  MIG 7g.40gb        0     0/1        39.25      No     98     5     0   |
|                                                             7     1     1   |
+-----------------------------------------------------------------------------+
"""
PROFILES_81 = """\
| GPU   Name               ID    Instances   Memory     P2P    SM    DEC   ENC  |
|===============================================================================|
|   0  MIG 1g.20gb         15     4/4        19.62      No     26     1     0   |
|                                                               1     1     0   |
+-------------------------------------------------------------------------------+
|   0  MIG 1g.24gb+gfx     47     4/4        23.12      No     46     1     1   |
|                                                               1     1     0   |
|   0  MIG 1g.24gb+me.all  65     1/1        23.12      No     46     4     4   |
|                                                               1     4     1   |
|   1  MIG 1g.24gb-me      67     4/4        23.12      No     46     0     0   |
|                                                               1     0     0   |
"""
PLACEMENTS = """\
GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1
GPU  0 Profile ID  9 Placements: {0,4}:4
GPU  0 Profile ID  0 Placement : {0}:8
"""
INSTANCES = """\
+-------------------------------------------------------+
| GPU instances:                                        |
| GPU   Name             Profile  Instance   Placement  |
|                          ID       ID       Start:Size |
|=======================================================|
|   2  MIG 2g.20gb         14        3          0:2     |
+-------------------------------------------------------+
|   2  MIG 3g.40gb          9        2          4:4     |
+-------------------------------------------------------+
"""
COMPUTE_OLD = """\
|=======================================================|
|   0      1       MIG 1c.3g.20gb       0         0     |
+-------------------------------------------------------+
"""
COMPUTE_NEW = """\
|====================================================================|
|   0      2       MIG 3g.20gb          2*        0          0:3     |
+--------------------------------------------------------------------+
"""
LIST = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-7f57f032-34ab-a064-c37c-7a4f75601cc5)
  MIG 2g.20gb     Device  0: (UUID: MIG-377e0049-554c-540b-93c6-d0976f8426cb)
  MIG 1g.10gb     Device  1: (UUID: MIG-f39aa248-6f1b-5769-b119-8d650bb34b27)
GPU 1: A100-SXM4-40GB (UUID: GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0)
  MIG 3g.20gb Device 0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
"""


def test_profiles_in_both_table_widths() -> None:
    """Names with +me, -me and .all, one or two digits, narrow and wide tables."""
    assert parse_profiles(PROFILES_79) == [
        ListedProfile("1g.5gb", 19, 7, 7, 4.75, 14, (1, 0, 0, 0, 0)),
        ListedProfile("1g.5gb+me", 20, 1, 1, 4.75, 14, (1, 1, 0, 1, 1)),
        ListedProfile("7g.40gb", 0, 0, 1, 39.25, 98, (7, 5, 0, 1, 1)),
    ]
    names = [profile.name for profile in parse_profiles(PROFILES_81)]
    assert names == ["1g.20gb", "1g.24gb+gfx", "1g.24gb+me.all", "1g.24gb-me"]


def test_placements_of_one_and_of_many() -> None:
    """The word is padded where there is one place only."""
    assert parse_placements(PLACEMENTS) == [
        ListedPlacements(19, (0, 1, 2, 3, 4, 5, 6), 1),
        ListedPlacements(9, (0, 4), 4),
        ListedPlacements(0, (0,), 8),
    ]


def test_gpu_instances() -> None:
    """Each row gives profile, id and placement."""
    assert parse_gpu_instances(INSTANCES) == [
        GpuInstance(3, "2g.20gb", 14, 0, 2),
        GpuInstance(2, "3g.40gb", 9, 4, 4),
    ]


def test_compute_instances_with_and_without_placement() -> None:
    """Older drivers print no placement, newer ones mark the default profile with a star."""
    assert parse_compute_instances(COMPUTE_OLD) == [ComputeInstance(1, 0, "1c.3g.20gb")]
    assert parse_compute_instances(COMPUTE_NEW) == [ComputeInstance(2, 0, "3g.20gb")]


def test_mig_devices_of_the_right_gpu() -> None:
    """MIG devices are found below their GPU, by index or UUID, in both spacings."""
    first = parse_mig_devices(LIST, "GPU-7f57f032-34ab-a064-c37c-7a4f75601cc5")
    assert [device.profile for device in first] == ["2g.20gb", "1g.10gb"]
    assert parse_mig_devices(LIST, "1") == [
        MigDevice("3g.20gb", 0, "MIG-c7384736-a75d-5afc-978f-d2f1294409fd")
    ]
    assert parse_mig_devices(LIST, "7") == []
