"""Snapshots: the newest of ours and of others stay, however many declarations and upgrades there were."""

import os
from pathlib import Path

from app.decisions.snapshots import Snapshots


def test_only_the_newest_of_ours_and_of_all_others_are_kept(tmp_path: Path) -> None:
    clock = 1_000_000_000
    for digest in ("a1", "b2", "c3"):
        for step in (50, 100, 150):
            Snapshots(str(tmp_path), digest).write(step, digest.encode())
            os.utime(tmp_path / f"state-{step:06}-{digest}.bin", (clock := clock + 1, clock))
    ours = ["state-000100-c3.bin", "state-000150-c3.bin"]
    others = ["state-000100-b2.bin", "state-000150-b2.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*ours, *others])
    assert list(Snapshots(str(tmp_path), "b2").newest_first()) == [b"b2", b"b2"]
