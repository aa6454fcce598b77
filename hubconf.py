"""Networks for ``torch.hub.load(FOLDER, NAME, source="local")``, FOLDER being this one.

    derain = torch.hub.load("petrichor", "restorer", source="local", precision="bf16")
    network = torch.hub.load("petrichor", "petrichor", source="local")
    network = torch.hub.load("petrichor", "dcsfn", source="local", weights="their_model.pth")

``restorer`` takes images of any size and type. ``petrichor`` is the shipped network with its
weights. The names in models/registry.py give the other networks: newly initialised or, with
``weights``, from a .safetensors file of this project or a checkpoint of the network's authors. All
are in eval mode on the CPU. Their method ``restore`` maps (B, 3, H, W), RGB in [0, 1], to the same;
H and W must be multiples of ``size_multiple``.

The user's process may have packages called ``utils`` or ``models`` too, so ours are imported under
a private name: they neither find nor leave anything under the short names.
"""

from __future__ import annotations

import builtins
import collections.abc
import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import pathlib
import sys
import types
import typing

import torch

if typing.TYPE_CHECKING:
    from models.network import DerainingNetwork
    from utils.inference.restorer import Restorer

dependencies = ["torch", "numpy", "cv2", "safetensors"]

_ROOT = pathlib.Path(__file__).resolve().parent
_OURS = {"configs", "data", "losses", "models", "utils"}
# Two clones in one process are two packages.
_PRIVATE = f"petrichor_{hashlib.sha1(str(_ROOT).encode()).hexdigest()[:8]}"


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module whose imports of our packages, later ones too, find the private ones."""

    def exec_module(self, module: types.ModuleType) -> None:
        # Import statements use the __import__ of their module's builtins.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the private package, whose folder is this one, and its modules."""

    def find_spec(
        self,
        fullname: str,
        path: collections.abc.Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == _PRIVATE:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(_ROOT)]
            return spec
        if not fullname.startswith(f"{_PRIVATE}."):
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        if found and isinstance(found.loader, importlib.machinery.SourceFileLoader):
            found.loader = _Loader(fullname, found.loader.path)
        return found


def _import(
    name: str,
    namespace: typing.Mapping[str, object] | None = None,
    local: typing.Mapping[str, object] | None = None,
    names: collections.abc.Sequence[str] = (),
    level: int = 0,
) -> types.ModuleType:
    """``__import__`` with our packages replaced by the private ones."""
    top = name.partition(".")[0]
    if level or top not in _OURS:
        return builtins.__import__(name, namespace, local, names, level)
    module = builtins.__import__(f"{_PRIVATE}.{name}", namespace, local, names, 0)
    return module if names else sys.modules[f"{_PRIVATE}.{top}"]


def _ours(name: str) -> typing.Any:
    return importlib.import_module(f"{_PRIVATE}.{name}")


if _PRIVATE not in sys.modules:
    sys.meta_path.insert(0, _Finder())
_models = _ours("models")


def petrichor() -> DerainingNetwork:
    """The network and weights that ship with the project."""
    return _models.load_weights(_models.SHIPPED_WEIGHTS)


def restorer(
    weights: str | pathlib.Path | None = None,
    device: torch.device | str = "cpu",
    **options: typing.Any,
) -> Restorer:
    """Derains images of any size: uint8, uint16 or float arrays (H, W, 3), tensors (3, H, W).

    ``weights`` is a file of this project, by default the shipped one; ``options`` are the others of
    ``utils.inference.restorer.Restorer``.
    """
    device = _ours("utils.devices").find_device(device)
    path = _models.SHIPPED_WEIGHTS if weights is None else _file(weights)
    network = _models.load_weights(path).to(device)
    return _ours("utils.inference.restorer").Restorer(network, device=device, **options)


def _network(
    name: str, weights: str | pathlib.Path | None = None, **options: typing.Any
) -> DerainingNetwork:
    """``options`` are fields of the network's configuration; files of this project contain them."""
    if weights is None:
        return _models.build_model(name, options).eval()
    path = _file(weights)
    if path.suffix.lower() != ".safetensors":
        return _models.load_published(name, path, options)
    if options:
        raise _user_error(
            f"The options of {name} are in the weights file; leave {', '.join(options)} out."
        )
    network = _models.load_weights(path)
    if type(network) is not _models.NETWORKS[name][0]:
        raise _user_error(f"{weights} holds a {type(network).__name__}, not a {name}.")
    return network


def _file(weights: object) -> pathlib.Path:
    if not isinstance(weights, (str, pathlib.Path)) or not str(weights):
        raise _user_error(f"weights is {weights!r}; it must be the name of a file.")
    return pathlib.Path(weights)


def _user_error(sentence: str) -> Exception:
    return _ours("utils.errors").UserError(sentence)


for _name in _models.NETWORKS:
    _entry = functools.partial(_network, _name)
    _entry.__doc__ = f"The network {_name}, newly initialised with options or from a weight file."
    globals()[_name] = _entry
