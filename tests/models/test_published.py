"""TensorFlow checkpoints: real ones where tensorflow-cpu is installed, its absence anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from models.published import is_tensorflow_checkpoint, read_tensorflow_checkpoint
from utils.errors import UserError


def write_checkpoint(prefix: Path) -> dict[str, torch.Tensor]:
    """One step of a tiny TensorFlow 1 training; the trained variables."""
    pytest.importorskip("tensorflow", reason="tensorflow-cpu is not installed")
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
        tf1.train.Saver().save(session, str(prefix), write_meta_graph=False)
        return {
            "generator/rnn1/weight": torch.from_numpy(session.run(weight)),
            "generator/rnn1/alpha": torch.from_numpy(session.run(alpha)),
        }


def test_variables_are_read_without_the_training_state(tmp_path: Path) -> None:
    expected = write_checkpoint(tmp_path / "epoch44")
    variables = read_tensorflow_checkpoint(tmp_path / "epoch44")
    assert variables.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(variables[name], value), name


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    write_checkpoint(tmp_path / "epoch44")
    file = tmp_path / f"epoch44{suffix}"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match="damaged"):
        read_tensorflow_checkpoint(tmp_path / "epoch44")


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
