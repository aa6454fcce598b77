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
import pathlib
import typing

import torch

# Whole modules: torch.hub takes every name here that can be called for an entry.
import models
import models.network
import utils.devices
import utils.errors
import utils.inference.restorer

dependencies = ["torch", "numpy", "cv2", "safetensors"]


def petrichor() -> models.network.DerainingNetwork:
    """The network that ships with the project, with its weights."""
    return models.load_weights(models.SHIPPED_WEIGHTS)


def restorer(
    weights: str | pathlib.Path | None = None,
    device: torch.device | str = "cpu",
    **options: typing.Any,
) -> utils.inference.restorer.Restorer:
    """Derains images of any size: uint8, uint16 or float arrays (H, W, 3), tensors (3, H, W).

    ``weights`` is a file of this project, by default the network that ships; ``options`` are the
    others of ``utils.inference.restorer.Restorer``.
    """
    device = utils.devices.find_device(device)
    network = models.load_weights(models.SHIPPED_WEIGHTS if weights is None else _file(weights))
    return utils.inference.restorer.Restorer(network.to(device), device=device, **options)


def _network(
    name: str, weights: str | pathlib.Path | None = None, **options: typing.Any
) -> models.network.DerainingNetwork:
    """``options`` are fields of the network's configuration; our own files settle them."""
    if weights is None:
        return models.build_model(name, options).eval()
    path = _file(weights)
    if path.suffix.lower() != ".safetensors":
        return models.load_published(name, path, options)
    if options:
        raise utils.errors.UserError(
            f"The weights settle {name}'s options; leave {', '.join(options)} out."
        )
    network = models.load_weights(path)
    if type(network) is not models.NETWORKS[name][0]:
        raise utils.errors.UserError(
            f"{weights} holds a {type(network).__name__}, which is no {name}."
        )
    return network


def _file(weights: object) -> pathlib.Path:
    if not isinstance(weights, (str, pathlib.Path)) or not str(weights):
        raise utils.errors.UserError(f"weights is {weights!r}; it must be the name of a file.")
    return pathlib.Path(weights)


for _name in models.NETWORKS:
    _entry = functools.partial(_network, _name)
    _entry.__doc__ = f"The network {_name}; its weights from a file, or initialised with options."
    globals()[_name] = _entry
