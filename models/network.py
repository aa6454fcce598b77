"""The interface of all networks, so that no script has to know which one it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self


class DerainingNetwork(nn.Module):
    """Base of all networks: a map from rainy images to clean ones.

    Inputs are (B, 3, H, W), RGB in [0, 1]. H and W must be multiples of ``size_multiple`` and at
    least ``min_size``; callers pad other images (``utils.inference.restorer``). Outputs are not
    clipped.
    """

    size_multiple: ClassVar[int] = 1
    min_size: ClassVar[int] = 1
    # Tiles start at multiples of this, so that poolings see the same pixels as in the whole image.
    tile_step: ClassVar[int] = 32
    # Side of the windows that the release cuts test images into; None: whole images.
    released_window: ClassVar[int | None] = None
    # Side of the tiles that restore best; None: the larger the better.
    best_tile: ClassVar[int | None] = None
    # Outputs besides the restored images that LOSS.IMPLICIT compares with the clean image: the
    # index in what ``forward`` returns, and how often the clean image is halved.
    implicit_outputs: ClassVar[tuple[tuple[int, int], ...]] = ()

    # Blocks that OPTIM.GRADIENT_CHECKPOINTING computes twice to save memory.
    checkpointed_blocks: ClassVar[tuple[type[nn.Module], ...]] = ()
    # Blocks with an attribute ``is_compiled`` that OPTIM.COMPILE sets; empty: it compiles the whole
    # network.
    compiled_blocks: ClassVar[tuple[type[nn.Module], ...]] = ()

    # The network's name in the registry and the options that ``build_model`` was given.
    registry_name: str
    options: dict[str, Any]
    # Facts from its weight file, such as the epoch; empty for a new network.
    info: dict[str, Any]

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """All images that the training loss compares, in the release's order, as a tuple.

        The first is the restored image, (B, 3, H, W). Train and eval mode differ in normalisation
        only.
        """
        raise NotImplementedError

    def compile_for_training(self) -> None:
        """What OPTIM.COMPILE does: see ``compiled_blocks``."""
        if not self.compiled_blocks:
            self.compile()
        for module in self.modules():
            if isinstance(module, self.compiled_blocks):
                module.is_compiled = True  # type: ignore[assignment]

    def compile_restoring(self) -> None:
        """Compile ``restore`` at its next call; needs a C++ compiler."""
        self.restore = torch.compile(self.restore)  # type: ignore[method-assign]

    def restore(self, rainy: Tensor) -> Tensor:
        """The restored image alone, (B, 3, H, W)."""
        return self.forward(rainy)[0]

    @classmethod
    def from_pretrained(cls, repository: str | Path, **options: Any) -> Self:
        """The network of a Hugging Face repository ``user/name`` or a folder, in eval mode.

        ``options`` are those of ``huggingface_hub.hf_hub_download``: revision, token, cache_dir,
        local_files_only, force_download. Raises UserError if it cannot be loaded or is not a
        network of this class.
        """
        from models.hub import load_pretrained

        return load_pretrained(cls, repository, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and a short model card into a folder."""
        from models.hub import hub_model

        hub_model(self).save_pretrained(folder)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Upload to ``user/name`` on the Hugging Face Hub; returns the URL of the commit.

        ``options`` are those of huggingface_hub's ``ModelHubMixin.push_to_hub``: private, token,
        branch, commit_message. Raises UserError if the Hub refuses or cannot be reached.
        """
        from models.hub import push_to_hub

        return push_to_hub(self, repository, **options)
