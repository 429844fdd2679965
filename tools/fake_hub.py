"""A small server on this machine that answers the client of the Hugging Face Hub: it keeps what is uploaded, in memory."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REVISION = "0" * 40
"""The only one that there is."""


class FakeHub(ThreadingHTTPServer):
    """Its address is what ``HF_ENDPOINT`` has to name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, dict[str, bytes]] = {}
        """By repository and path."""


class Handler(BaseHTTPRequestHandler):
    """The requests that RL Zoo's push_to_hub and load_from_hub lead to."""

    server: FakeHub

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            request = json.loads(body)
            repo = f"{request['organization']}/{request['name']}"
            self.server.files[repo] = {".gitattributes": b""}
            self._json({"url": f"{self.server.address}/{repo}", "id": repo})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
        else:  # a commit: one operation a line
            repo = self.path.removeprefix("/api/models/").split("/commit/")[0]
            for operation in map(json.loads, body.splitlines()):
                if operation["key"] == "file":
                    content = base64.b64decode(operation["value"]["content"])
                    self.server.files[repo][operation["value"]["path"]] = content
            self._json({"commitOid": REVISION, "commitUrl": f"{self.server.address}/{repo}/commit/{REVISION}"})

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            repo, path = self.path[1:].split("/resolve/")
            content = self.server.files.get(repo, {}).get(path.split("/", 1)[1])
            if content is None:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            else:
                self._answer(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})
            return
        repo = "/".join(self.path.removeprefix("/api/models/").split("/")[:2])
        files = self.server.files.get(repo, {})
        if not files:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in self.path:
            self._json([{"type": "file", "path": path, "size": len(files[path]), "oid": REVISION} for path in files])
        else:
            self._json({"id": repo, "sha": REVISION, "siblings": [{"rfilename": path} for path in files]})

    do_HEAD = do_GET

    def _chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return chunk

    def _json(self, answer: Any) -> None:
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": REVISION, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
