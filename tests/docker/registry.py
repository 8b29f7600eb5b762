"""A registry for `docker pull` on loopback, where no other can be reached: one image, served as the distribution API says."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import define, field

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@define
class Registry:
    """``image``: its full name. ``asked``: how often each path was."""

    image: str
    digest: str
    asked: Counter[str] = field(factory=Counter)

    def pulls(self) -> int:
        """How often the layer was fetched."""
        return sum(count for path, count in self.asked.items() if path.startswith("GET layer"))


@contextmanager
def serving(root: bytes) -> Iterator[Registry]:
    """Serves the image ``served:1`` made of ``root``, a tar archive."""
    layer = gzip.compress(root, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(root)]},
            "history": [{"created": "2020-01-01T00:00:00Z"}],
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(config),
                "digest": _digest(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "size": len(layer),
                    "digest": _digest(layer),
                }
            ],
        }
    ).encode()
    answers = {
        "/v2/": ("application/json", b"{}"),
        "/v2/served/manifests/1": (MANIFEST, manifest),
        f"/v2/served/manifests/{_digest(manifest)}": (MANIFEST, manifest),
        f"/v2/served/blobs/{_digest(config)}": ("application/octet-stream", config),
        f"/v2/served/blobs/{_digest(layer)}": ("application/octet-stream", layer),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = answers.get(self.path)
            what = "layer" if self.path.endswith(_digest(layer)) else self.path
            registry.asked[f"{self.command} {what}"] += 1
            kind, body = found or ("application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            if found:
                self.send_header("Docker-Content-Digest", _digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry = Registry(f"127.0.0.1:{server.server_port}/served:1", _digest(manifest))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
