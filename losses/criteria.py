"""Which output of a network meets which clean image, and with what weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from losses.pyramids import PYRAMIDS
from losses.terms import TERMS, l1
from utils.errors import UserError

# NeRD-Rain's implicit images among its outputs, and the pyramid level that each is compared with.
IMPLICIT_OUTPUTS = ((3, 1), (5, 2))


class Criterion(nn.Module):
    """The training loss: weighted terms summed over the scales of a network's outputs.

    loss = sum over scales s < num_scales, terms t: weights[t] * t(outputs[s], pyramid(clean)[s])
           + implicit_weight * sum over IMPLICIT_OUTPUTS of L1

    Terms see the images mapped from [0, 1] to ``value_range``. Everything runs in float32 also
    under autocast: spectra and small differences do not survive half precision.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        num_scales: int = 1,
        pyramid: str = "bilinear",
        implicit_weight: float = 0.0,
        value_range: Sequence[float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.num_scales = num_scales
        self.pyramid = PYRAMIDS[pyramid]
        self.implicit_weight = implicit_weight
        self.low, self.high = value_range

    def forward(self, outputs: Sequence[Tensor], clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and, detached, the unweighted sum over the scales of each term.

        ``outputs`` are a network's (B, 3, h, w) images, finest first; ``clean`` is (B, 3, H, W)
        in [0, 1].
        """
        with torch.autocast(clean.device.type, enabled=False):
            needed = max([self.num_scales] + [i + 1 for i, _ in self._implicit_outputs()])
            if len(outputs) < needed:
                raise UserError(
                    f"LOSS.SCALES is {self.num_scales} and LOSS.IMPLICIT {self.implicit_weight}, "
                    f"which takes {needed} outputs; this network has {len(outputs)}."
                )
            levels = max([self.num_scales] + [n + 1 for _, n in self._implicit_outputs()])
            targets = [self._to_range(x) for x in self.pyramid(clean.float(), levels)]
            images = [self._to_range(x.float()) for x in outputs]
            pairs = list(
                zip(images[: self.num_scales], targets, strict=False)
            )  # only the first scales
            parts = {
                name: torch.stack([TERMS[name](x, y) for x, y in pairs]).sum()
                for name in self.weights
            }
            loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
            if self.implicit_weight:
                implicit = [l1(images[i], targets[n]) for i, n in self._implicit_outputs()]
                parts["IMPLICIT"] = torch.stack(implicit).sum()
                loss = loss + self.implicit_weight * parts["IMPLICIT"]
        return loss, {name: part.detach() for name, part in parts.items()}

    def _implicit_outputs(self) -> tuple[tuple[int, int], ...]:
        return IMPLICIT_OUTPUTS if self.implicit_weight else ()

    def _to_range(self, image: Tensor) -> Tensor:
        if (self.low, self.high) == (0.0, 1.0):
            return image
        return self.low + (self.high - self.low) * image
