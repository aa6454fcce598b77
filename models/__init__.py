"""The networks by name, and their weights from files."""

from models.foreign import load_foreign
from models.published import load_initial, load_published, load_weights
from models.registry import NETWORKS, build_model

__all__ = [
    "NETWORKS",
    "build_model",
    "load_foreign",
    "load_initial",
    "load_published",
    "load_weights",
]
