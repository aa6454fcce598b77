"""Plurals, sizes and the nearest known name, as messages show them."""

from __future__ import annotations

import numpy as np
import pytest

from utils.wording import did_you_mean, listed, plural, size_text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12, "12 images")]
)
def test_only_one_is_singular(number: int, text: str):
    assert plural(number, "image") == text


def test_a_list_reads_like_a_sentence():
    assert listed([]) == "" and listed(["a"]) == "a" and listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_a_size_has_the_width_first():
    assert size_text(np.zeros((321, 481, 3))) == size_text(np.zeros((321, 481))) == "481x321"


def test_the_nearest_name_is_proposed_in_its_own_spelling():
    known = ["nerd_rain", "nerd_rain_s", "DCSFN"]
    assert did_you_mean("nerd-rain", known) == " Did you mean nerd_rain?"
    assert did_you_mean("dcsfm", known) == " Did you mean DCSFN?"
    assert did_you_mean("unrelated", known) == did_you_mean("x", []) == ""
    assert did_you_mean("sfn", known, cutoff=0.9) == ""
