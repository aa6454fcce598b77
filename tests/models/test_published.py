"""Other projects' weight files: their keys and names, what is refused, TensorFlow's checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models import build_model, load_published, load_weights
from models.published import load_initial, to_published
from models.published.reader import WRAPPERS, read_state_dict
from models.published.tensorflow import is_tensorflow_checkpoint, read_tensorflow_checkpoint
from tests.reference import run_tensorflow
from utils.checkpoints import Weights, write_weights
from utils.errors import UserError

WEIGHTS = {"stem.weight": torch.tensor([[3.0, -1.0]]), "stem.bias": torch.tensor([7.0])}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def entries_and_note(path: Path, key: str | None = None) -> tuple[dict[str, list], str]:
    found = read_state_dict(path, key)
    return {name: value.tolist() for name, value in found.entries.items()}, found.note


EXPECTED = {name: value.tolist() for name, value in WEIGHTS.items()}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pth.tar"])
def test_wrapped_weights_are_found_and_the_key_is_reported(
    tmp_path: Path, wrapper: str, suffix: str
) -> None:
    path = saved(tmp_path / f"a{suffix}", {wrapper: WEIGHTS, "epoch": 3, "optimizer": {"lr": 0.1}})
    entries, note = entries_and_note(path)
    assert entries == EXPECTED
    assert note == f"a{suffix}: the weights under {wrapper} taken."


def test_the_key_of_the_authors_is_not_reported(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"net": WEIGHTS, "params": {"stem.bias": torch.zeros(1)}})
    assert entries_and_note(path, "net") == (EXPECTED, "")


def test_plain_weights_are_not_reported(tmp_path: Path) -> None:
    assert entries_and_note(saved(tmp_path / "a.pth", WEIGHTS), "net") == (EXPECTED, "")
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    assert entries_and_note(tmp_path / "a.safetensors") == (EXPECTED, "")


def test_averaged_weights_come_before_those_in_training(tmp_path: Path) -> None:
    others = {name: value + 1 for name, value in WEIGHTS.items()}
    path = saved(tmp_path / "a.pth", {"params": others, "params_ema": WEIGHTS})
    entries, note = entries_and_note(path)
    assert entries == EXPECTED
    assert note == "a.pth: the weights under params_ema taken, not under params."


def test_weights_within_two_wrappers(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"model": {"state_dict": WEIGHTS, "epoch": 2}})
    assert entries_and_note(path) == (EXPECTED, "a.pth: the weights under model.state_dict taken.")


def test_prefixes_and_counters_are_removed_and_reported(tmp_path: Path) -> None:
    wrapped = {f"module._orig_mod.{name}": value for name, value in WEIGHTS.items()}
    counters = {"module.total_ops": torch.zeros(1), "module.stem.total_params": torch.zeros(1)}
    entries, note = entries_and_note(saved(tmp_path / "a.pth", wrapped | counters))
    assert entries == EXPECTED
    assert (
        note
        == "a.pth: 2 counters of thop left out; the prefix _orig_mod. of torch.compile removed."
    )
    # a layer that is called module stays: not all names have this prefix
    mixed = {"module.weight": torch.ones(2), "stem.bias": torch.zeros(1)}
    assert read_state_dict(saved(tmp_path / "b.pth", mixed)).entries.keys() == mixed.keys()
    twice = {"a": torch.ones(1), "_orig_mod.a": torch.zeros(1)}
    with pytest.raises(UserError, match="two entries of one name"):
        read_state_dict(saved(tmp_path / "c.pth", twice))


def test_numbers_of_numpy_beside_the_weights_are_read(tmp_path: Path) -> None:
    numbers = {
        "best_psnr": np.float64(31.25), "best": np.float32(2), "epoch": np.int64(3),
        "seed": np.uint8(7), "done": np.bool_(True),
    }  # fmt: skip
    path = saved(tmp_path / "a.pth", {"state_dict": WEIGHTS, **numbers})
    assert entries_and_note(path, "state_dict") == (EXPECTED, "")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_what_would_execute_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    path = saved(tmp_path / "a.pth", {"state_dict": WEIGHTS, "extra": Bomb(planted)})
    with pytest.raises(UserError, match="could execute code, so it is refused"):
        read_state_dict(path)
    assert not planted.exists()


class Planting(nn.Module):
    """A module that writes a file when its TorchScript archive is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        torch.save("text", self.path)


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pt"])
def test_torchscript_archives_are_refused_and_do_not_run(tmp_path: Path, suffix: str) -> None:
    planted = tmp_path / "planted"
    torch.jit.script(Planting(str(planted))).save(tmp_path / f"a{suffix}")
    with pytest.raises(UserError, match=r"a TorchScript archive, which is a program .* refused"):
        read_state_dict(tmp_path / f"a{suffix}")
    assert not planted.exists()
    torch.jit.load(tmp_path / f"a{suffix}")  # proves that loading would have run it
    assert planted.exists()


@pytest.mark.parametrize(
    "content", [{"epoch": 3}, [torch.zeros(1)], torch.zeros(1), {}, {"params": {}}]
)
def test_files_without_named_tensors_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(
        UserError, match=r"no named tensors at its top level or under net, params_ema"
    ):
        read_state_dict(saved(tmp_path / "a.pth", content), "net")


def test_a_truncated_safetensors_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(WEIGHTS, path)
    whole = path.read_bytes()
    for length in (0, 5, 20, len(whole) - 3):
        path.write_bytes(whole[:length])
        for read in (read_state_dict, load_weights):
            with pytest.raises(
                UserError, match=r"a\.safetensors is not a complete safetensors file"
            ):
                read(path)


def test_an_authors_network_is_read_from_such_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_model("dmsr_s")
    theirs = {f"module._orig_mod.{name}": x for name, x in to_published(network).items()}
    path = saved(tmp_path / "a.pth", {"params_ema": theirs, "best": np.float64(3)})
    state = load_published("dmsr_s", path).state_dict()
    assert "under params_ema taken" in capsys.readouterr().out
    assert all(torch.equal(state[name], x) for name, x in network.state_dict().items())
    other = build_model("dmsr_s")
    assert load_initial(other, "dmsr_s", path) == ""
    assert all(torch.equal(other.state_dict()[name], x) for name, x in state.items())
    heard: list[str] = []
    load_published("dmsr_s", path, notify=heard.append)
    assert len(heard) == 1 and capsys.readouterr().out.count("params_ema") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([1, 2], "does not say which network it holds"),
        ("width", "does not say which network it holds"),
        ({"width": 2000}, "does not fit the network: entries .* of another shape"),
        ({"width": 10**6}, "width is 1000000; it must be at most 4096"),
        ({"num_blocks": 10**9}, "num_blocks is 1000000000; it must be at most 4096"),
        ({"width": "8"}, "must be of type int"),
    ],
)
def test_odd_options_in_a_file_are_one_sentence(
    tmp_path: Path, options: object, message: str
) -> None:
    path = tmp_path / "a.safetensors"
    state = build_model("dmsr_s", {"width": 4, "num_blocks": 1}).state_dict()
    write_weights(path, Weights("dmsr_s", options, state, {}))
    with pytest.raises(UserError, match=message):
        load_weights(path)


# TensorFlow: checkpoints if tensorflow-cpu is installed; what is reported if it is not

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
def test_variables_are_read_without_the_training_state_and_damage_is_reported(
    tmp_path: Path,
) -> None:
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
def test_variables_of_text_are_refused(tmp_path: Path) -> None:
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
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    with pytest.raises(UserError, match="pip install tensorflow-cpu"):
        read_tensorflow_checkpoint(tmp_path / "epoch44")
