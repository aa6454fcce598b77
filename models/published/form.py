"""What the authors' file of a network looks like: names, layouts, colour order, wrapping."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from models.network import DerainingNetwork

Network = TypeVar("Network", bound=DerainingNetwork)


class PublishedForm(Generic[Network]):
    """The form in which the authors of a network store its weights.

    This default, the network's own names in a plain state dict, is that of networks without a
    release elsewhere.
    """

    # Key that holds the weights in a PyTorch file; None: the file is the state dict itself.
    key: ClassVar[str | None] = None
    # Whether the authors publish TensorFlow 1 checkpoints instead.
    is_tensorflow: ClassVar[bool] = False

    def to_published(self, network: Network) -> dict[str, Tensor]:
        """The weights as the authors' own checkpoint holds them: every name, the unused ones too.

        For a network on the meta device these are the expected names and shapes. Entries that the
        release stores and never uses are filled with zeros.
        """
        return dict(network.state_dict())

    def from_published(self, network: Network, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inverse: the state dict of ``network`` from a complete published one."""
        return dict(published)

    def name_in_file(self, network: Network, name: str) -> str:
        """What the authors' file calls an entry of ``to_published``."""
        return name

    def name_from_file(self, name: str) -> str:
        """The inverse, for a name that ``models.published.reader`` has cleaned."""
        return name
