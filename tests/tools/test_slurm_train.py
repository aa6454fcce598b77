"""tools/slurm_train.sh with stand-ins for SLURM's programs and for train.py."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from configs import load_config
from data.settings import check_batches
from tests.helpers import ROOT

SCRIPT = ROOT / "tools" / "slurm_train.sh"
PROGRAMS = {
    # Every task, one after another; the status is the highest, as srun's.
    "srun": """
        while [[ $1 == --* ]]; do echo "srun $1" >> log; shift; done
        highest=0
        for rank in 0 1; do
            SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 "$@"
            status=$?; [ $status -gt $highest ] && highest=$status
        done
        exit $highest""",
    "scontrol": """
        echo "scontrol $*" >> log
        echo first-node; echo second-node""",
    "python": """
        echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT $*" >> log
        exit $STATUS""",
}


@pytest.mark.parametrize("status", [0, 1, 75])
def test_a_stopped_job_is_requeued_and_no_other(tmp_path: Path, status: int) -> None:
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", SCRIPT, "RUN.NAME", "my run"],
        env={
            **{"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]"},
            **{"SLURM_JOB_ID": "43210", "SLURM_SUBMIT_DIR": str(tmp_path), "STATUS": str(status)},
        },
    )
    assert done.returncode == status
    log = (tmp_path / "log").read_text()
    for rank in (0, 1):
        expected = f"{rank} {rank} 2 first-node 23210 train.py --resume RUN.NAME my run\n"
        assert expected in log
    assert "srun --kill-on-bad-exit=0" in log  # 1 would turn 75 into the status of a kill
    assert ("scontrol requeue 43210\n" in log) == (status == 75)


def test_the_example_can_start_on_the_tasks_it_asks_for() -> None:
    text = SCRIPT.read_text()
    tasks = int(re.search(r"--ntasks-per-node=(\d+)", text)[1])
    config, name = re.search(r"sbatch \S+ --config (\S+) RUN\.NAME (\S+)", text).groups()
    check_batches(load_config(ROOT / config, ["RUN.NAME", name]), tasks)
