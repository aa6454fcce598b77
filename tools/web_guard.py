"""Who may use the local page, and how much they may send: an ASGI middleware.

A web server on 127.0.0.1 is not private by itself: any page that the user has open may send it
requests, and a name that resolves to 127.0.0.1 makes them look like requests of the server's own
page (DNS rebinding). So every request must name this server's address as its host and, if it has
one, as its origin. All others are refused before their body is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# What the browser may load: files of this server and data that the page creates.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none'"
)
MAX_JSON = 2**20  # bytes of a request without a file
CHUNK = 2**16
# A URL or a network path in place of the path of a file.
ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]*:|//|\\\\|/\\|\\/)", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """What visitors may send.

    request: bytes of one upload.
    folder: bytes of all visitors' files together.
    silence: seconds without a byte after which an upload is refused.
    upload: seconds that a whole upload may take.
    """

    request: int
    folder: int = 4 * 2**30
    silence: float = 30
    upload: float = 600


class Refusal(Exception):  # noqa: N818  (an answer, not an error)
    """The answer to a refused request: a status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """Wraps an ASGI application; ``folder`` contains all files of visitors.

    The application sees a request only when its body is complete. An upload waits in an unnamed
    file until then, so an aborted one leaves nothing behind.
    """

    def __init__(self, application: Application, folder: Path, limits: Limits) -> None:
        self.application, self.folder, self.limits = application, folder, limits
        self._num_arriving = 0  # bytes received of unfinished uploads

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no websockets
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", []), policy]
            await send(message)

        try:
            self._check_sender(scope)
            if scope["method"] in ("GET", "HEAD", "OPTIONS"):
                await self.application(scope, receive, send_with_policy)
            elif _header(scope, b"content-type").startswith("multipart/"):
                await self._upload(scope, receive, send_with_policy)
            else:
                parts = [part async for part in self._parts(scope, receive, MAX_JSON)]
                body = _checked_json(b"".join(parts))
                again = _replay(io.BytesIO(body), len(body), receive)
                await self.application(scope, again, send_with_policy)
        except Refusal as refusal:
            await _answer(send_with_policy, refusal)

    def _check_sender(self, scope: MutableMapping[str, Any]) -> None:
        """Raises Refusal for hosts and origins other than this server's own address."""
        port = scope["server"][1]
        own = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
        if port == 80:  # which browsers leave out
            own += ["127.0.0.1", "localhost"]
        hosts = _headers(scope, b"host")
        origins = _headers(scope, b"origin")
        if (
            len(hosts) != 1
            or hosts[0].lower() not in own
            or any(origin.lower() not in [f"http://{name}" for name in own] for origin in origins)
        ):
            raise Refusal(403, f"This page is served to http://{own[0]} only.")
        if "://" in unquote(scope["path"]):
            raise Refusal(403, "This page serves its own files only.")

    async def _upload(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Receive a whole upload, then pass it to the application."""
        num_stored = await asyncio.to_thread(_folder_bytes, self.folder)
        num_bytes = 0
        with tempfile.TemporaryFile(dir=self.folder) as file:
            try:
                async for part in self._parts(scope, receive, self.limits.request):
                    num_bytes += len(part)
                    self._num_arriving += len(part)
                    if num_stored + self._num_arriving > self.limits.folder:
                        raise Refusal(
                            507, "Too many photographs are waiting here; try again in an hour."
                        )
                    file.write(part)
            finally:
                self._num_arriving -= num_bytes
            file.seek(0)
            await self.application(scope, _replay(file, num_bytes, receive), send)

    async def _parts(
        self, scope: MutableMapping[str, Any], receive: Receive, limit: int
    ) -> AsyncIterator[bytes]:
        """The parts of a request's body, at most ``limit`` bytes.

        Raises Refusal for a body that is too large, before it is read if its length is announced,
        and for a sender that is silent, too slow or gone.
        """
        announced = _header(scope, b"content-length")
        _check_size(int(announced) if announced.isdecimal() else 0, limit)
        end, num_bytes = time.monotonic() + self.limits.upload, 0
        while True:
            patience = min(self.limits.silence, end - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), max(patience, 0))
            except asyncio.TimeoutError:
                raise Refusal(408, "The upload took too long; try again.") from None
            if message["type"] == "http.disconnect":
                raise Refusal(400, "The upload was aborted.")
            part = message.get("body", b"")
            num_bytes += len(part)
            _check_size(num_bytes, limit)
            yield part
            if not message.get("more_body", False):
                return


def _headers(scope: MutableMapping[str, Any], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _header(scope: MutableMapping[str, Any], name: bytes) -> str:
    return next(iter(_headers(scope, name)), "").strip().lower()


def _check_size(num_bytes: int, limit: int) -> None:
    if num_bytes > limit:
        raise Refusal(413, f"At most {limit / 2**20:.4g} MiB can be sent at once.")


def _checked_json(body: bytes) -> bytes:
    """The body, if its files are paths. Raises Refusal for URLs, which Gradio would fetch.

    The JSON is serialised again, so that the application reads exactly what was checked.
    """
    if not body:
        return body
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request is not JSON.") from None
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and ADDRESS.match(path):
                raise Refusal(403, "A file must have been uploaded; addresses are not fetched.")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return json.dumps(content).encode()


def _folder_bytes(folder: Path) -> int:
    """The total size of the files in a folder; files removed meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _replay(body: IO[bytes], num_bytes: int, receive: Receive) -> Receive:
    """Passes on a body that was received before, then later messages (a disconnection)."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        part = body.read(CHUNK)
        is_given = body.tell() >= num_bytes
        return {"type": "http.request", "body": part, "more_body": not is_given}

    return receive_again


async def _answer(send: Send, refusal: Refusal) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"connection", b"close"),  # the unread rest of a body must not look like a request
    ]
    start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": str(refusal).encode()})
