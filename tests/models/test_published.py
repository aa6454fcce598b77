"""TensorFlow checkpoints: real ones where tensorflow-cpu is installed, its absence anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from models.published.tensorflow import is_tensorflow_checkpoint, read_tensorflow_checkpoint
from tests.reference import run_tensorflow
from utils.errors import UserError

# One step of a tiny TensorFlow 1 training, and the trained variables.
TRAIN = """
import sys
import numpy
import tensorflow.compat.v1 as tf1
with tf1.Graph().as_default(), tf1.Session() as session:
    with tf1.variable_scope("generator"):
        weight = tf1.get_variable("rnn1/weight", [3, 3, 4, 2])
        alpha = tf1.get_variable("rnn1/alpha", [4], initializer=tf1.zeros_initializer())
    with tf1.variable_scope("MSPFN"):
        step = tf1.train.create_global_step()
    loss = tf1.reduce_sum(weight**2) + tf1.reduce_sum((alpha - 1) ** 2)
    train = tf1.train.AdamOptimizer(0.1).minimize(loss, global_step=step)
    session.run(tf1.global_variables_initializer())
    session.run(train)
    tf1.train.Saver().save(session, sys.argv[1], write_meta_graph=False)
    values = {"generator/rnn1/weight": weight, "generator/rnn1/alpha": alpha}
    numpy.savez(sys.argv[2], **session.run(values))
"""


@pytest.mark.extras
def test_variables_are_read_without_the_training_state_and_damage_is_told(tmp_path: Path) -> None:
    prefix = tmp_path / "epoch44"
    run_tensorflow(TRAIN, prefix, tmp_path / "expected.npz")
    variables = read_tensorflow_checkpoint(prefix)
    with np.load(tmp_path / "expected.npz") as expected:
        assert variables.keys() == set(expected.files)
        for name, value in variables.items():
            assert np.array_equal(value.numpy(), expected[name]), name
    for suffix in (".data-00000-of-00001", ".index"):
        file = tmp_path / f"epoch44{suffix}"
        whole = file.read_bytes()
        file.write_bytes(whole[:20])
        with pytest.raises(UserError, match="damaged"):
            read_tensorflow_checkpoint(prefix)
        file.write_bytes(whole)


TEXTS = """
import sys
import tensorflow
tensorflow.raw_ops.SaveV2(
    prefix=sys.argv[1], tensor_names=["a"], shape_and_slices=[""], tensors=[["no number"]]
)
"""


@pytest.mark.extras
def test_texts_are_refused(tmp_path: Path) -> None:
    run_tensorflow(TEXTS, tmp_path / "texts")
    with pytest.raises(UserError, match="not numbers"):
        read_tensorflow_checkpoint(tmp_path / "texts")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    assert not is_tensorflow_checkpoint(tmp_path / "epoch44")
    with pytest.raises(UserError, match=r"no file .*epoch44\.index; name .* by its prefix"):
        read_tensorflow_checkpoint(tmp_path / "epoch44")


def test_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "epoch44.index").touch()
    assert is_tensorflow_checkpoint(tmp_path / "epoch44")
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as where it is not installed
    with pytest.raises(UserError, match="pip install tensorflow-cpu"):
        read_tensorflow_checkpoint(tmp_path / "epoch44")
