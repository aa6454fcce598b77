"""Networks on the Hugging Face Hub: a folder, and a server on the loopback address.

The server has the Hub's routes for downloads and uploads. The client is huggingface_hub itself, in
another process because it reads HF_ENDPOINT when it is imported.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from models import build_model, load_initial, load_weights
from models.network import DerainingNetwork
from tests.helpers import ROOT
from utils.errors import UserError

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.extras

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The Hub's routes over ``repositories``: name -> path in the repository -> content."""

    repositories: dict[str, dict[str, bytes]]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        files = self.repositories.get(name)
        if files is None:
            self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", "v1", COMMIT):
            self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif path not in files:
            self.answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            tag = hashlib.sha256(files[path]).hexdigest()
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}
            self.answer(200, files[path], headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer right":
            self.answer(401, json.dumps({"error": "Invalid credentials"}).encode())
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            self.repositories[f"{wanted['organization']}/{wanted['name']}"] = {}
            url = f"http://{self.headers['Host']}/{wanted['organization']}/{wanted['name']}"
            self.answer(200, json.dumps({"url": url}).encode())
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            self.answer(200, json.dumps({"files": modes}).encode())
        elif "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            commit = {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"}
            self.answer(200, json.dumps(commit | {"commitOid": COMMIT}).encode())
        else:
            self.answer(200, b"{}")  # the check of the model card's front matter

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[str, dict[str, dict[str, bytes]]]]:
    """The address of a running server, and its repositories."""
    repositories: dict[str, dict[str, bytes]] = {}
    handler = type("Handler", (Hub,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", repositories
    server.shutdown()
    server.server_close()


def run_client(code: str, address: str, cache: Path, *arguments: object) -> list[str]:
    """The lines that ``code`` prints in a process whose Hub is ``address``."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            **{"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"},
            **{"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": ""},
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ONLINE = """
import sys, torch
from models import build_model, load_weights
from models.network import DerainingNetwork
from utils.errors import UserError

torch.manual_seed(3)
network = build_model("dmsr_s", {"width": 4})
network.info["epoch"] = 7
print(network.push_to_hub("someone/small", token="right"))
for name in ("someone/small", "hf:someone/small", "hf:someone/small@v1"):
    load = load_weights if name.startswith("hf:") else DerainingNetwork.from_pretrained
    loaded = load(name)
    state = network.state_dict()
    print(
        all(torch.equal(state[key], value) for key, value in loaded.state_dict().items()),
        loaded.registry_name, loaded.options, loaded.info["epoch"], loaded.training,
    )
for name in ("someone/absent", "someone/small@v9", "someone/empty", "not/a/name"):
    try:
        load_weights("hf:" + name)
    except UserError as error:
        print(error)
try:
    network.push_to_hub("someone/small", token="wrong")
except UserError as error:
    print(error)
"""

OFFLINE = """
from models import load_weights
from utils.errors import UserError

print(load_weights("hf:someone/small").options)
try:
    load_weights("hf:someone/other")
except UserError as error:
    print(error)
"""


def test_upload_download_and_the_cache(
    hub: tuple[str, dict[str, dict[str, bytes]]], tmp_path: Path
) -> None:
    address, repositories = hub
    repositories["someone/empty"] = {"README.md": b"nothing here"}
    lines = run_client(ONLINE, address, tmp_path)
    assert lines[0] == f"{address}/someone/small/commit/{COMMIT}"
    assert lines[1:4] == ["True dmsr_s {'width': 4} 7 False"] * 3
    assert lines[4:] == [
        "Cannot get hf:someone/absent: there is no such repository, or it is private "
        "(`hf auth login`).",
        "Cannot get hf:someone/small@v9: there is no such revision.",
        "Cannot get hf:someone/empty: it holds no model.safetensors, so it is not a network of "
        "this project.",
        "Cannot get hf:not/a/name: Repo id must be in the form 'repo_name' or "
        "'namespace/repo_name': 'not/a/name'. Use `repo_type` argument if needed.",
        lines[8],
    ]
    assert lines[8].startswith("Cannot upload to someone/small: ") and "401" in lines[8]
    small = repositories["someone/small"]
    assert set(small) == {"model.safetensors", "config.json", "README.md"}
    assert json.loads(small["config.json"]) == {"model": "dmsr_s", "options": {"width": 4}}
    assert b"pipeline_tag: image-to-image" in small["README.md"]
    # Nothing listens on port 9; what was downloaded before still loads.
    offline = run_client(OFFLINE, "http://127.0.0.1:9", tmp_path)
    assert offline == [
        "{'width': 4}",
        "Cannot get hf:someone/other: the Hub cannot be reached, and the file is not in the "
        "local cache.",
    ]


def test_a_folder_stands_for_a_repository(tmp_path: Path) -> None:
    torch.manual_seed(4)
    network = build_model("dcsfn_t")
    network.save_pretrained(tmp_path / "mine")
    other = build_model("dcsfn_t")
    assert load_initial(other, "dcsfn_t", f"hf:{tmp_path / 'mine'}") == ""
    for loaded in (DerainingNetwork.from_pretrained(tmp_path / "mine"), other):
        for key, value in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # what a failed import looks like
    with pytest.raises(UserError, match=r"need the package huggingface_hub: pip install"):
        load_weights("hf:someone/small")
