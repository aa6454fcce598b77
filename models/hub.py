"""Networks on the Hugging Face Hub, through the package huggingface_hub.

    network = DerainingNetwork.from_pretrained("user/name", revision="v1")
    network.push_to_hub("user/name")

A repository holds model.safetensors, a weight file of this project, which names its network in its
metadata. ``hf:user/name`` and ``hf:user/name@REVISION`` are accepted wherever a weight file is.
huggingface_hub is optional and imported on first use.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, TypeVar

from models.network import DerainingNetwork
from utils.checkpoints import Weights, write_weights
from utils.errors import UserError

PREFIX = "hf:"
FILE_NAME = "model.safetensors"

Network = TypeVar("Network", bound=DerainingNetwork)


def local_weights(path: str | Path) -> Path:
    """The local file that ``path`` names; an ``hf:`` name is downloaded or found in the cache.

    Raises UserError if the package, the connection, the repository or its file is missing.
    """
    name = str(path)
    if not name.startswith(PREFIX):
        return Path(path)
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    return download(repository, revision=revision or None)


def download(repository: str, **options: Any) -> Path:
    """The weight file of a repository ``user/name``, in huggingface_hub's cache.

    A local folder of that name is preferred, as by every ``from_pretrained`` of the field.
    ``options`` are those of ``huggingface_hub.hf_hub_download``: revision, token, cache_dir,
    local_files_only, force_download. Without a connection a cached file is used.
    """
    if Path(repository).is_dir():
        return Path(repository) / FILE_NAME
    hub = _import_hub()
    try:
        return Path(hub.hf_hub_download(repository, FILE_NAME, **options))
    except _hub_errors() as error:
        raise UserError(f"Cannot get {_named(repository, options)}: {_reason(error)}") from error


def load_pretrained(
    network_class: type[Network], repository: str | Path, **options: Any
) -> Network:
    """``DerainingNetwork.from_pretrained``: download, read, and check the network's class."""
    from models.published import load_weights  # it imports this module

    repository = str(repository)
    if not Path(repository).is_dir():
        name, _, revision = repository.removeprefix(PREFIX).partition("@")
        repository, options = name, {"revision": revision or None, **options}
    network = load_weights(download(repository, **options))
    if not isinstance(network, network_class):
        raise UserError(
            f"{repository} holds a {type(network).__name__}, not a {network_class.__name__}."
        )
    return network


def push_to_hub(network: DerainingNetwork, repository: str, **options: Any) -> str:
    """``DerainingNetwork.push_to_hub``: create the repository if necessary, then upload."""
    model = hub_model(network)
    try:
        return str(model.push_to_hub(repository, **options))
    except _hub_errors() as error:
        raise UserError(f"Cannot upload to {repository}: {_reason(error)}") from error


def hub_model(network: DerainingNetwork) -> Any:
    """The network in a class with huggingface_hub's PyTorchModelHubMixin, to save and upload it."""
    return _hub_model_class()(network)


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            "Weights on the Hugging Face Hub need the package huggingface_hub: "
            "pip install huggingface_hub."
        ) from error
    return huggingface_hub


def _hub_errors() -> tuple[type[Exception], ...]:
    """The errors of huggingface_hub for refusals, missing files, bad names, lost connections."""
    from huggingface_hub import errors

    return OSError, ValueError, errors.HTTPError


def _named(repository: str, options: dict[str, Any]) -> str:
    revision = options.get("revision")
    return f"{PREFIX}{repository}{f'@{revision}' if revision else ''}"


def _reason(error: Exception) -> str:
    """One sentence on what went wrong, or else the first line of the Hub's own message."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        return "the Hub cannot be reached, and the file is not in the local cache."
    if isinstance(error, errors.GatedRepoError):
        return "access is restricted; ask for it on its page, then run `hf auth login`."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private (`hf auth login`)."
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision."
    if isinstance(error, errors.EntryNotFoundError):
        return f"it holds no {FILE_NAME}, so it is not a network of this project."
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].strip().rstrip(".") + "."


@functools.cache
def _hub_model_class() -> Any:
    """A class that wraps a network in the mixin; made on first use, since it needs the package."""
    _import_hub()
    from huggingface_hub import PyTorchModelHubMixin

    class HubModel(  # type: ignore[call-arg, unused-ignore]  # if the package is missing
        PyTorchModelHubMixin,
        library_name="petrichor",
        pipeline_tag="image-to-image",
        tags=["deraining", "image-restoration"],
    ):
        def __init__(self, network: DerainingNetwork) -> None:
            self.network = network
            # Becomes config.json, by which the Hub counts downloads.
            self._hub_mixin_config = {"model": network.registry_name, "options": network.options}

        def _save_pretrained(self, save_directory: Path) -> None:
            network = self.network
            weights = Weights(
                network.registry_name, network.options, network.state_dict(), network.info
            )
            write_weights(save_directory / FILE_NAME, weights)

    return HubModel
