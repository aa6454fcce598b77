"""Which output of a network is compared with which clean image, and with what weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from losses.pyramids import PYRAMIDS
from losses.terms import L1, TERMS
from utils.errors import UserError

# The index of an output in what a network returns, and how often its clean image is halved.
ImplicitOutputs = tuple[tuple[int, int], ...]


class Criterion(nn.Module):
    """The training loss: weighted terms summed over the scales of a network's outputs.

    loss = sum over scales s < num_scales, terms t: weights[t] * t(outputs[s], pyramid(clean)[s])
           + implicit_weight * sum over implicit_outputs (i, n): L1(outputs[i], pyramid(clean)[n])

    Terms see the images mapped from [0, 1] to ``value_range``. Everything runs in float32, under
    autocast too: half precision is too coarse for spectra and small differences. The kernels of
    terms and pyramid are buffers, so move the criterion to the device of the images.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        num_scales: int = 1,
        pyramid: str = "bilinear",
        implicit_weight: float = 0.0,
        implicit_outputs: ImplicitOutputs = (),
        value_range: Sequence[float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.terms = nn.ModuleDict({name: TERMS[name]() for name in self.weights})
        self.num_scales = num_scales
        self.pyramid = PYRAMIDS[pyramid]()
        self.l1 = L1()
        self.implicit_weight = implicit_weight
        self.implicit_outputs = implicit_outputs if implicit_weight else ()
        self.low, self.high = value_range

    def forward(self, outputs: Sequence[Tensor], clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the unweighted sum of each term over the scales, detached.

        ``outputs`` are a network's (B, 3, h, w) images, finest first; ``clean`` is (B, 3, H, W)
        in [0, 1]. Raises UserError as ``check`` does.
        """
        self.check(outputs, clean)
        with torch.autocast(clean.device.type, enabled=False):
            levels = 1 + max(level for _, level in self._compared())
            targets = [self._to_range(x) for x in self.pyramid(clean.float(), levels)]
            images = [self._to_range(x.float()) for x in outputs]
            scales = range(self.num_scales)
            parts = {
                name: torch.stack([term(images[s], targets[s]) for s in scales]).sum()
                for name, term in self.terms.items()
            }
            loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
            if self.implicit_outputs:
                implicit = [self.l1(images[i], targets[n]) for i, n in self.implicit_outputs]
                parts["IMPLICIT"] = torch.stack(implicit).sum()
                loss = loss + self.implicit_weight * parts["IMPLICIT"]
        return loss, {name: part.detach() for name, part in parts.items()}

    def check(self, outputs: Sequence[Tensor], clean: Tensor) -> None:
        """Raise UserError unless ``outputs`` are images that this loss can compare with ``clean``.

        Only shapes are read, so the tensors may be on the meta device.
        """
        if not isinstance(outputs, tuple) or not all(isinstance(x, Tensor) for x in outputs):
            raise UserError(
                f"The network's forward returns {_described(outputs)}; it must return a tuple of "
                "images, (restored,) for a single one."
            )
        compared = self._compared()
        needed = 1 + max(place for place, _ in compared)
        if len(outputs) < needed:
            raise UserError(
                f"LOSS.SCALES is {self.num_scales} and LOSS.IMPLICIT {self.implicit_weight}, "
                f"which takes {needed} outputs; this network has {len(outputs)}."
            )
        batch, channels, height, width = clean.shape
        for place, level in compared:
            wanted = (batch, channels, height // 2**level, width // 2**level)
            if outputs[place].shape != wanted:
                raise UserError(
                    f"Output {place} of the network has the shape {tuple(outputs[place].shape)}; "
                    f"for {height} x {width} images the loss compares it with a clean image of the "
                    f"shape {wanted}."
                )

    def _compared(self) -> list[tuple[int, int]]:
        """The indices of the outputs that are compared, each with its level of the pyramid."""
        return [(scale, scale) for scale in range(self.num_scales)] + [*self.implicit_outputs]

    def _to_range(self, image: Tensor) -> Tensor:
        if (self.low, self.high) == (0.0, 1.0):
            return image
        return self.low + (self.high - self.low) * image


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {', '.join(type(x).__name__ for x in value)}"
    return f"a {type(value).__name__}"
