"""Training losses: terms, pyramids of the clean image, and the criterion that combines them."""

from __future__ import annotations

from yacs.config import CfgNode

from losses.criteria import Criterion, ImplicitOutputs
from losses.pyramids import PYRAMIDS
from utils.errors import UserError


def build_criterion(node: CfgNode, implicit_outputs: ImplicitOutputs = ()) -> Criterion:
    """The criterion of the LOSS settings. Raises UserError for impossible ones.

    ``implicit_outputs`` is the attribute of that name of ``DerainingNetwork``.
    """
    if not any(node.TERMS.values()):
        raise UserError(
            "Every term of the loss has the weight 0; set one of "
            f"LOSS.TERMS.{', '.join(node.TERMS)}."
        )
    if node.PYRAMID not in PYRAMIDS:
        raise UserError(
            f"LOSS.PYRAMID is {node.PYRAMID!r}; it must be one of {', '.join(PYRAMIDS)}."
        )
    if node.IMPLICIT and not implicit_outputs:
        raise UserError(
            f"LOSS.IMPLICIT is {node.IMPLICIT}, but this network has no implicit outputs; set it "
            "to 0."
        )
    return Criterion(
        dict(node.TERMS),
        num_scales=node.SCALES,
        pyramid=node.PYRAMID,
        implicit_weight=node.IMPLICIT,
        implicit_outputs=implicit_outputs,
        value_range=tuple(node.RANGE),
    )
