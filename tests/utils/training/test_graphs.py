"""When a CUDA graph is refused or recorded again; tests/test_cuda.py tests what it computes."""

from __future__ import annotations

import pytest
import torch

from configs import load_config
from tests.helpers import ROOT
from utils.errors import UserError
from utils.training.graphs import Recording, check_graph

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("device", "world_size", "accumulate", "what"),
    [
        (CPU, 1, 1, "needs a CUDA device"),
        (GPU, 2, 1, "works in a single process only"),
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


def test_a_graph_serves_images_of_its_own_kind_only() -> None:
    images = torch.zeros(2, 3, 8, 12)
    recording = Recording(None, images, images, {}, [])
    assert recording.fits(torch.ones(2, 3, 8, 12), torch.ones(2, 3, 8, 12))
    for other in (
        torch.zeros(2, 3, 12, 8),
        images.bfloat16(),
        images.contiguous(memory_format=torch.channels_last),
        images.to("meta"),
    ):
        assert not recording.fits(other, images) and not recording.fits(images, other)
