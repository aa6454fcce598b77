"""What every deraining network of this project offers, so that scripts need no cases."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


class DerainingNetwork(nn.Module):
    """Base of all networks: a map from rainy images to clean ones.

    Inputs are (B, 3, H, W), RGB in [0, 1]. H and W must be multiples of ``size_multiple`` and at
    least ``min_size``; padding an image to that is the caller's business
    (``utils.inference.restorer``).
    Outputs are not clipped.
    """

    size_multiple: ClassVar[int] = 1
    min_size: ClassVar[int] = 1
    # Tiles start at multiples of this: poolings then fall on the same pixels as in the whole image.
    tile_step: ClassVar[int] = 32
    # Side of the windows that the release cuts test images into; None: whole images.
    released_window: ClassVar[int | None] = None
    # Side of the tiles that restore best; None: the larger the better.
    best_tile: ClassVar[int | None] = None
    # Outputs besides the restored images that LOSS.IMPLICIT compares with the clean image: place
    # in what ``forward`` returns, and how often the clean image is halved.
    implicit_outputs: ClassVar[tuple[tuple[int, int], ...]] = ()

    # What the authors' files look like; only ``models.published`` reads and writes them.
    # Key that holds the weights in a PyTorch file; None: the file is the state dict itself.
    published_key: ClassVar[str | None] = None
    # Whether the authors publish TensorFlow 1 checkpoints instead.
    published_in_tensorflow: ClassVar[bool] = False

    # Classes of the blocks that OPTIM.GRADIENT_CHECKPOINTING computes twice to save memory.
    checkpointed_blocks: ClassVar[tuple[type[nn.Module], ...]] = ()

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """All images that the training loss looks at, in the release's order.

        The first is the restored image, (B, 3, H, W); a network with one output returns a tuple
        of one. The result does not depend on train or eval mode except through normalisation.
        """
        raise NotImplementedError

    def compile_for_training(self) -> None:
        """Compile what OPTIM.COMPILE shall make faster; by default the whole network."""
        self.compile()

    def restore(self, rainy: Tensor) -> Tensor:
        """The restored image alone, (B, 3, H, W): ``forward(rainy)[0]`` without the other heads."""
        return self.forward(rainy)[0]

    def to_published(self) -> dict[str, Tensor]:
        """The weights as the authors' own checkpoint holds them: every name, the unused ones too.

        On the meta device this tells the expected names and shapes. Entries that the release
        stores and never uses are filled with zeros. A network that was never published elsewhere
        keeps this default: its own names.
        """
        return dict(self.state_dict())

    def from_published(self, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inverse: this network's state dict from a complete published one."""
        return dict(published)

    def name_in_file(self, name: str) -> str:
        """What the authors' file calls an entry of ``to_published``."""
        return name

    @staticmethod
    def name_from_file(name: str) -> str:
        """The inverse; ``module.`` is what parallel training in PyTorch puts before a name."""
        return name.removeprefix("module.")
