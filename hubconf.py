"""Networks for ``torch.hub.load(FOLDER, NAME, source="local")``, FOLDER being this one.

    network = torch.hub.load("petrichor", "petrichor", source="local")
    network = torch.hub.load("petrichor", "dcsfn", source="local", weights="their_model.pth")
    derain = torch.hub.load("petrichor", "restorer", source="local", precision="bf16")

``petrichor`` is the network that ships, with its weights. Every other name of models/registry.py
gives that network: freshly initialised, or with ``weights``, a .safetensors file of this project or
a checkpoint of the network's authors. All come in eval mode on the CPU and offer ``restore``, which
maps (B, 3, H, W), RGB in [0, 1], of legal sizes to the same. ``restorer`` takes images of any size
and type instead.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from models import NETWORKS, build_model, load_published, load_weights
from models.network import DerainingNetwork
from utils.errors import UserError
from utils.inference.restorer import Restorer

dependencies = ["torch", "numpy", "cv2", "safetensors"]

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "petrichor.safetensors"


def petrichor() -> DerainingNetwork:
    """The network that ships with the project, with its weights."""
    return load_weights(SHIPPED_WEIGHTS)


def restorer(weights: str | Path | None = None, **options: Any) -> Restorer:
    """Derains images of any size: uint8, uint16 or float arrays (H, W, 3), tensors (3, H, W).

    ``weights`` is a file of this project, by default the network that ships; ``options`` are those
    of ``utils.inference.restorer.Restorer``.
    """
    return Restorer(load_weights(weights or SHIPPED_WEIGHTS), **options)


def _network(name: str, weights: str | Path | None = None, **options: Any) -> DerainingNetwork:
    """``options`` are fields of the network's configuration; our own files settle them."""
    if weights is None:
        return build_model(name, options).eval()
    if Path(weights).suffix != ".safetensors":
        return load_published(name, weights, options)
    if options:
        raise UserError(f"The weights settle {name}'s options; leave {', '.join(options)} out.")
    network = load_weights(weights)
    if type(network) is not NETWORKS[name][0]:
        raise UserError(f"{weights} holds a {type(network).__name__}, which is no {name}.")
    return network


for _name in NETWORKS:
    _entry = functools.partial(_network, _name)
    _entry.__doc__ = f"The network {_name}; its weights from a file, or initialised with options."
    globals()[_name] = _entry
