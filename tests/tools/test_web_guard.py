"""The guard of the local page, around a small application that echoes what it receives."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tools.web_guard import MAX_JSON, POLICY, Guard, Limits

PORT = 7861
OWN = ("host", f"127.0.0.1:{PORT}")
UPLOAD = ("content-type", "multipart/form-data; boundary=x")


async def repeat(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method and the complete body."""
    body, more = b"", scope["method"] != "GET"
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["method"].encode() + b" " + body})


class Visit:
    """One request: its parts, then silence or, if it ``leaves``, a disconnection."""

    def __init__(self, parts: Sequence[bytes] = (b"",), *, ends: bool = True, leaves: bool = False):
        self.messages = [
            {"type": "http.request", "body": part, "more_body": not ends or i < len(parts) - 1}
            for i, part in enumerate(parts)
        ]
        if leaves:
            self.messages.append({"type": "http.disconnect"})
        self.num_read = 0

    async def receive(self) -> dict[str, Any]:
        if self.num_read == len(self.messages):
            await asyncio.Event().wait()
        self.num_read += 1
        return self.messages[self.num_read - 1]

    def to(
        self, guard: Guard, *headers: tuple[str, str], method: str = "POST", path: str = "/upload"
    ) -> tuple[int, str, dict[bytes, bytes]]:
        """Status, text and headers of the answer."""
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "server": ("127.0.0.1", PORT),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        }
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(guard(scope, self.receive, send))
        start, body = sent
        return start["status"], body["body"].decode(), dict(start["headers"])


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    limits = Limits(request=1000, folder=1500, silence=0.05, upload=0.2)
    return Guard(repeat, tmp_path, limits)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([OWN], 200),
        ([("host", f"LocalHost:{PORT}")], 200),
        ([OWN, ("origin", f"http://127.0.0.1:{PORT}")], 200),
        ([OWN, ("origin", f"http://localhost:{PORT}")], 200),
        ([("host", "evil.example")], 403),
        ([("host", f"evil.example:{PORT}"), ("origin", f"http://evil.example:{PORT}")], 403),
        ([("host", f"127.0.0.1:{PORT + 1}")], 403),
        ([("host", f"127.0.0.1.evil.example:{PORT}")], 403),
        ([OWN, ("origin", "http://evil.example")], 403),
        ([OWN, ("origin", f"https://127.0.0.1:{PORT}")], 403),
        ([OWN, ("origin", f"http://127.0.0.1:{PORT + 1}")], 403),  # another server's page
        ([OWN, ("origin", "null")], 403),
        ([OWN, ("host", "evil.example")], 403),
        ([], 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_only_its_own_address_is_served(
    headers: list[tuple[str, str]], status: int, method: str, guard: Guard
) -> None:
    visit = Visit()
    code, text, answer = visit.to(guard, *headers, UPLOAD, method=method)
    assert code == status
    assert answer[b"content-security-policy"] == POLICY.encode()
    assert b"access-control-allow-origin" not in answer
    if status == 403:
        assert visit.num_read == 0  # the body was not read
        assert text == f"This page is served to http://127.0.0.1:{PORT} only."


def test_an_upload_arrives_whole(guard: Guard, tmp_path: Path) -> None:
    parts = [bytes([i]) * 100 for i in range(10)]
    code, text, _ = Visit(parts).to(guard, OWN, UPLOAD, ("content-length", "1000"))
    assert (code, text.encode("latin-1")) == (200, b"POST " + b"".join(parts))
    assert list(tmp_path.iterdir()) == []


def test_a_large_upload_is_read_from_the_disk_in_parts(tmp_path: Path) -> None:
    guard = Guard(repeat, tmp_path, Limits(request=10**6))
    body = os.urandom(200_001).hex()[:300_001]
    code, text, _ = Visit([body.encode()]).to(guard, OWN, UPLOAD)
    assert (code, text) == (200, f"POST {body}")


def test_an_upload_that_is_too_large_is_refused(guard: Guard, tmp_path: Path) -> None:
    announced = Visit([b"a"])
    assert announced.to(guard, OWN, UPLOAD, ("content-length", "1001"))[0] == 413
    assert announced.num_read == 0
    hidden = Visit([b"a" * 600, b"b" * 401, b"c" * 600])  # without its length
    code, text, _ = hidden.to(guard, OWN, UPLOAD)
    assert (code, text) == (413, "At most 0.0009537 MiB can be sent at once.")
    assert hidden.num_read == 2
    assert list(tmp_path.iterdir()) == []


def test_all_waiting_files_have_a_limit(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "gradio" / "a").mkdir(parents=True)
    (tmp_path / "gradio" / "a" / "photo.png").write_bytes(bytes(901))
    assert Visit([b"a" * 599]).to(guard, OWN, UPLOAD)[0] == 200
    assert Visit([b"a" * 599]).to(guard, OWN, UPLOAD)[0] == 200  # the first one has arrived
    code, text, _ = Visit([b"a" * 600]).to(guard, OWN, UPLOAD)
    assert code == 507 and "Too many photographs" in text


@pytest.mark.parametrize(
    ("visit", "status"),
    [
        (Visit([b"a", b"b"], ends=False), 408),  # silent from then on
        (Visit([b"a", b"b"], ends=False, leaves=True), 400),
    ],
)
def test_uploads_that_do_not_end_leave_nothing(
    visit: Visit, status: int, guard: Guard, tmp_path: Path
) -> None:
    assert visit.to(guard, OWN, UPLOAD)[0] == status
    assert list(tmp_path.iterdir()) == []


def test_an_upload_may_not_take_forever(tmp_path: Path) -> None:
    """A sender of single bytes is never silent for long."""

    class Drip(Visit):
        async def receive(self) -> dict[str, Any]:
            await asyncio.sleep(0.01)
            self.num_read += 1
            return {"type": "http.request", "body": b"a", "more_body": True}

    guard = Guard(repeat, tmp_path, Limits(request=10**6, silence=5, upload=0.1))
    visit = Drip()
    assert visit.to(guard, OWN, UPLOAD)[0] == 408
    assert 1 < visit.num_read <= 10


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/cache/gradio/photo.png", 200),
        ("photo of http.png", 200),
        ("http://169.254.169.254/latest", 403),
        ("HTTPS://evil.example/a.png", 403),
        ("file:///etc/passwd", 403),
        (" data:image/png;base64,AA", 403),
        ("//evil.example/a.png", 403),
        ("\\\\evil\\share", 403),
    ],
)
def test_files_are_paths_and_never_addresses(path: str, status: int, guard: Guard) -> None:
    photo = {"path": path, "url": f"http://127.0.0.1:{PORT}/file", "meta": {"_type": "FileData"}}
    content = {"data": [[photo], "small", 1.0], "fn_index": 1}
    code, text, _ = Visit([json.dumps(content).encode()]).to(guard, OWN, path="/queue/join")
    assert code == status
    if status == 200:
        assert json.loads(text.removeprefix("POST ")) == content


def test_what_is_read_is_what_was_checked(guard: Guard) -> None:
    """Parsers disagree on which of two equal keys counts."""
    body = b'{"path": "http://evil.example", "path": "a.png"}'
    assert Visit([body]).to(guard, OWN)[1] == 'POST {"path": "a.png"}'
    assert Visit([b"{"]).to(guard, OWN)[:2] == (400, "The request is not JSON.")
    assert Visit([b"[" * 100_000]).to(guard, OWN)[0] == 400
    assert Visit([b" " * (MAX_JSON + 1)]).to(guard, OWN)[0] == 413


def test_addresses_in_the_path_are_refused(guard: Guard) -> None:
    """Gradio would redirect to them."""
    for path in ("/file=https://evil.example", "/file=https%3A//evil.example"):
        assert Visit().to(guard, OWN, method="GET", path=path)[0] == 403
