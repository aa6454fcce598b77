"""The form of the authors' weights of a network: names, layouts, channel order, key in the file."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from models.network import DerainingNetwork

Network = TypeVar("Network", bound=DerainingNetwork)


class PublishedForm(Generic[Network]):
    """The form in which the authors of a network store its weights.

    This default is for networks without a release elsewhere: a plain state dict of our own names.
    """

    # Key that holds the weights in a PyTorch file; None: the file is the state dict itself.
    key: ClassVar[str | None] = None
    # Whether the authors publish TensorFlow 1 checkpoints.
    is_tensorflow: ClassVar[bool] = False

    def to_published(self, network: Network) -> dict[str, Tensor]:
        """All entries of the authors' checkpoint; those that the release never uses are zeros.

        For a network on the meta device these are the expected names and shapes.
        """
        return dict(network.state_dict())

    def from_published(self, network: Network, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inverse: the state dict of ``network`` from a complete published one."""
        return dict(published)

    def name_in_file(self, network: Network, name: str) -> str:
        """The name that an entry of ``to_published`` has in the authors' file."""
        return name

    def name_from_file(self, name: str) -> str:
        """The inverse, for a name without the prefixes that ``reader.py`` removes."""
        return name
