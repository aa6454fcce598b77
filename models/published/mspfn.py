"""MSPFN's weights as its authors store them: TensorFlow 1 checkpoints."""

from __future__ import annotations

from torch import Tensor

from models.mspfn import MSPFN, MSPFNConfig
from models.published.form import PublishedForm


class MSPFNForm(PublishedForm[MSPFN]):
    """Names are those of the training graph without its root.

    Layouts are TensorFlow's: kernels (kh, kw, in, out), transposed ones (kh, kw, out, in). Images
    are BGR. The LSTMs' recurrent kernels and forget gates are zeros.
    """

    is_tensorflow = True

    def to_published(self, network: MSPFN) -> dict[str, Tensor]:
        state = network.state_dict()
        names = published_names(network.config)
        return {theirs: _to_tensorflow(theirs, state[ours]) for ours, theirs in names.items()}

    def from_published(self, network: MSPFN, published: dict[str, Tensor]) -> dict[str, Tensor]:
        names = published_names(network.config)
        return {ours: _from_tensorflow(theirs, published[theirs]) for ours, theirs in names.items()}

    # The root of test graphs is ``generator/``, that of training graphs ``model/``. MSPFN-N1's test
    # graph says BCM where all others say URAB.

    def name_in_file(self, network: MSPFN, name: str) -> str:
        """The name in a test graph."""
        is_n1 = set(network.config.num_attention) == {1}
        return f"generator/{name.replace('URAB', 'BCM') if is_n1 else name}"

    def name_from_file(self, name: str) -> str:
        """The name without its root; a name under another root stays and is then refused."""
        root, _, variable = name.partition("/")
        return variable.replace("BCM", "URAB") if root in ("generator", "model") else name


def published_names(config: MSPFNConfig) -> dict[str, str]:
    """Our names of parameters to the release's, without the root of the graph."""
    names = {"rm.head.weight": "rnn7/weight"}

    def add_conv(ours: str, theirs: str) -> None:
        """A convolution without bias, and its PReLU."""
        names[f"{ours}.conv.weight"] = f"{theirs}/weight"
        names[f"{ours}.prelu.weight"] = f"{theirs}/alpha"

    def add_attention(ours: str, theirs: str) -> None:
        for our_layer, their_layer in (
            ("conv_in", "conv2d"),
            ("conv_out", "conv2d_1"),
            ("squeeze", "conv2d_2"),
            ("excite", "conv2d_3"),
        ):
            names[f"{ours}.{our_layer}.weight"] = f"{theirs}/{their_layer}/kernel"
            names[f"{ours}.{our_layer}.bias"] = f"{theirs}/{their_layer}/bias"
        names[f"{ours}.prelu_in.weight"] = f"{theirs}/conv2d/alpha"
        names[f"{ours}.prelu_gate.weight"] = f"{theirs}/conv2d_2/alpha"

    for level, s in enumerate(("4", "2", "")):  # the release's suffixes of the three sizes
        add_conv(f"cfm.embed.{level}", f"rnn{s or 1}")
        add_conv(f"cfm.memory.{level}.reduce", f"residual_memory/rain{s}_res1")
        lstm = f"residual_memory/lstm_group{s}/convLSTM/LSTM_conv"
        names[f"cfm.memory.{level}.lstm.gates.weight"] = f"{lstm}/weights"
        names[f"cfm.memory.{level}.lstm.gates.bias"] = f"{lstm}/biases"
        add_conv(f"cfm.memory.{level}.expand", f"residual_memory/rain{s}_res2")
        add_conv(f"rm.reconstruct.{level}", f"rnn_recon{s}")
        for n in range(config.num_units):
            ours, theirs = f"ffm.{n}.urab.{level}", f"URAB{s}_{n}"
            add_conv(f"{ours}.down", f"{theirs}/down{s}_{n + 1}")
            for m in range(config.num_attention[level]):
                add_attention(f"{ours}.attention.{m}", f"{theirs}/group_{n + 1}_RCAB{m + 1}")
            add_conv(f"{ours}.up", f"{theirs}/up_{n + 1}")
    for n in range(config.num_units):
        add_conv(f"ffm.{n}.quarter_to_half", f"URAB2_{n}/upURAB4_2_{n}")
        add_conv(f"ffm.{n}.quarter_to_full", f"URAB_{n}/upURAB4to1_{n}")
        add_conv(f"ffm.{n}.half_to_full", f"URAB_{n}/upURAB2to1_{n}")
    add_conv("cfm.quarter_to_half", "residual_memory/upRMM4_2")
    add_conv("cfm.quarter_to_full", "residual_memory/upRMM4_1")
    add_conv("cfm.half_to_full", "residual_memory/upRMM2_1")
    add_conv("rm.merge_quarter", "up4_2")
    add_conv("rm.merge_half", "up2_1")
    add_conv("rm.merge_full", "rnn5")
    return names


# Indices of our gates i, j, o among the release's i, j, f, o.
_USED_GATES = [0, 1, 3]


def _to_tensorflow(name: str, value: Tensor) -> Tensor:
    """Our parameter in the layout of the published variable ``name``."""
    if name.endswith("LSTM_conv/biases"):
        gates = value.new_zeros(4, len(value) // 3)
        gates[_USED_GATES] = value.unflatten(0, (3, -1))
        return gates.flatten()
    if name.endswith("LSTM_conv/weights"):
        # (3 hidden, in, 3, 3) -> (3, 3, in, 3, hidden)
        used = value.permute(2, 3, 1, 0).unflatten(3, (3, -1))
        channels, hidden = used.shape[2], used.shape[4]
        gates = value.new_zeros(3, 3, channels + hidden, 4, hidden)
        gates[:, :, :channels, _USED_GATES] = used
        return gates.flatten(3)
    if value.ndim == 2:  # a 1x1 convolution: (out, in) -> (1, 1, in, out)
        return value.T[None, None]
    if value.ndim == 4:  # plain: (out, in, kh, kw), transposed: (in, out, kh, kw)
        return _flip_colours(name, value.permute(2, 3, 1, 0))
    return value


def _from_tensorflow(name: str, value: Tensor) -> Tensor:
    """The inverse of ``_to_tensorflow``."""
    if name.endswith("LSTM_conv/biases"):
        return value.unflatten(0, (4, -1))[_USED_GATES].flatten()
    if name.endswith("LSTM_conv/weights"):
        hidden = value.shape[3] // 4
        used = value.unflatten(3, (4, hidden))[:, :, :-hidden, _USED_GATES]
        return used.flatten(3).permute(3, 2, 0, 1)
    if value.ndim == 4:
        weight = _flip_colours(name, value).permute(3, 2, 0, 1)
        is_linear = value.shape[:2] == (1, 1)
        return weight[:, :, 0, 0] if is_linear else weight
    return value


def _flip_colours(name: str, kernel: Tensor) -> Tensor:
    """RGB to BGR or back in the kernels (kh, kw, out, in) whose inputs or outputs are images."""
    if name in ("rnn1/weight", "rnn2/weight", "rnn4/weight"):
        return kernel.flip(3)
    if name == "rnn7/weight":
        return kernel.flip(2)
    return kernel
