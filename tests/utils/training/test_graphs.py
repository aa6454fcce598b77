"""Where a step's CUDA graph cannot be had; what it computes is tested in tests/test_cuda.py."""

from __future__ import annotations

import pytest
import torch

from configs import load_config
from tests.helpers import ROOT
from utils.errors import UserError
from utils.training.graphs import check_graph

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("device", "world_size", "accumulate", "what"),
    [
        (CPU, 1, 1, "needs a CUDA device"),
        (GPU, 2, 1, "works in one process"),
        (GPU, 1, 2, "OPTIM.ACCUMULATE"),
        (GPU, 1, 1, None),
    ],
)
def test_a_graph_that_cannot_be_had_is_refused(device, world_size, accumulate, what) -> None:
    for is_on in ("True", "False"):
        settings = ["OPTIM.CUDA_GRAPH", is_on, "OPTIM.ACCUMULATE", str(accumulate)]
        cfg = load_config(ROOT / "configs/demo.yml", settings)
        if what and is_on == "True":
            with pytest.raises(UserError, match=what):
                check_graph(cfg, device, world_size)
        else:
            check_graph(cfg, device, world_size)
