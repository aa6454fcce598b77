"""The networks by name, and their weights from files."""

# Importing a NAME_fast.py registers the faster forms of the blocks in NAME.py.
from models import dcsfn_fast, dmsr_fast, layers_fast, mspfn_fast, nerd_rain_fast  # noqa: F401
from models.foreign import AnyNetwork, load_foreign
from models.hub import local_weights
from models.published import SHIPPED_WEIGHTS, load_initial, load_published, load_weights
from models.registry import NETWORKS, build_model

__all__ = [
    "NETWORKS",
    "SHIPPED_WEIGHTS",
    "AnyNetwork",
    "build_model",
    "load_foreign",
    "load_initial",
    "load_published",
    "load_weights",
    "local_weights",
]
