"""Training losses: terms, pyramids of the clean image, and the criterion that joins them."""

from __future__ import annotations

from yacs.config import CfgNode

from losses.criteria import Criterion
from losses.pyramids import PYRAMIDS
from utils.errors import UserError


def build_criterion(node: CfgNode) -> Criterion:
    """The criterion that the LOSS settings describe. Raises UserError for impossible ones."""
    if not any(node.TERMS.values()):
        raise UserError(
            f"No term of the loss has a weight; set one of LOSS.TERMS.{', '.join(node.TERMS)}."
        )
    if node.PYRAMID not in PYRAMIDS:
        raise UserError(
            f"LOSS.PYRAMID is {node.PYRAMID!r}; it must be one of {', '.join(PYRAMIDS)}."
        )
    return Criterion(dict(node.TERMS), node.SCALES, node.PYRAMID, node.IMPLICIT, tuple(node.RANGE))
