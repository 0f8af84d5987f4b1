"""An object store to test on: moto's S3 server, and a proxy before it that spoils what it is told to."""

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "of-the-tests",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

Fault = Callable[[str, str], str | None]
"""(method, path with query) -> what to do to the answer: a key of `_SPOILT`, "stall", or None."""


@dataclass
class Store:
    """A bucket of its own, with boto3 as an independent witness of what lies in it."""

    port: int
    client: Any
    bucket: str = field(default_factory=lambda: f"bucket-{uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.client.create_bucket(Bucket=self.bucket)

    @property
    def root(self) -> str:
        return f"s3://{self.bucket}"

    def put(self, key: str, data: bytes) -> str:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"{self.root}/{key}"

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def listed(self, prefix: str = "") -> list[str]:
        """Keys of objects with bytes in them: pyarrow leaves empty ones to mark folders."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", []) if each["Size"]]

    def unfinished_uploads(self) -> int:
        return len(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))


@contextmanager
def running_server() -> Iterator[tuple[int, Any]]:
    """moto's server on a free port, and a client of it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="witness",
        aws_secret_access_key="witness",  # noqa: S106 - moto asks nobody
    )
    try:
        yield port, client
    finally:
        server.stop()


def _answer(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>made by the test</Message></Error>".encode()
    fields = f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body


_REFUSED = {
    "500": _answer("500 Internal Server Error", "InternalError"),
    "503": _answer("503 Slow Down", "SlowDown"),
    "403": _answer("403 Forbidden", "AccessDenied"),
}


class Request(NamedTuple):
    """What a proxy saw."""

    method: str
    path: str
    fault: str | None
    answered_bytes: int = 0


class Proxy:
    """Passes one request a connection on to `port`; `fault` decides what becomes of it.

    "500", "503", "403" are answered instead of the server; "reset", "cut" and "stall" break the server's
    answer off half-way; "hang" keeps the request from the server for good."""

    def __init__(self, port: int, fault: Fault) -> None:
        self.requests: list[Request] = []
        self._upstream, self._fault = port, fault
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._listener.close()

    def spoilt(self) -> list[Request]:
        return [request for request in self.requests if request.fault]

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a client that is killed is gone in the middle of anything
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming:
            head = _head(incoming)
            if not head:
                return
            method, path, _ = head[0].decode().split(" ", 2)
            fields = {
                key.strip().lower(): value.strip() for key, value in (x.split(b":", 1) for x in head[1:])
            }
            if b"expect" in fields:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = _body(incoming, fields)
            kind = self._fault(method, path)
            if kind == "hang" or kind in _REFUSED:
                self.requests.append(Request(method, path, kind))
                connection.sendall(_REFUSED.get(kind, b""))
                if kind == "hang":
                    self._ended.wait()
                return
            answer = self._passed_on(head, body)
            self.requests.append(Request(method, path, kind, len(answer)))
            if kind is None:
                connection.sendall(answer)
                return
            begin = answer.index(b"\r\n\r\n") + 4
            connection.sendall(answer[: begin + (len(answer) - begin) // 2])
            if kind == "stall":
                self._ended.wait()
            elif kind == "reset":
                time.sleep(0.05)  # let the half arrive first
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _passed_on(self, head: list[bytes], body: bytes) -> bytes:
        kept = [line for line in head if not line.lower().startswith((b"connection:", b"expect:"))]
        with socket.create_connection(("127.0.0.1", self._upstream)) as upstream:
            upstream.sendall(b"".join(kept) + b"Connection: close\r\n\r\n" + body)
            pieces = []
            while piece := upstream.recv(2**20):
                pieces.append(piece)
        return b"".join(pieces)


def _head(incoming: Any) -> list[bytes]:
    lines = []
    while (line := incoming.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return lines


def _body(incoming: Any, fields: dict[bytes, bytes]) -> bytes:
    if fields.get(b"transfer-encoding") != b"chunked":
        return incoming.read(int(fields.get(b"content-length", 0)))
    body = b""
    while True:
        size = incoming.readline()
        if not size:
            raise ConnectionError("the client is gone")
        chunk = incoming.read(int(size.split(b";")[0], 16) + 2)
        body += size + chunk
        if len(chunk) == 2:
            return body
