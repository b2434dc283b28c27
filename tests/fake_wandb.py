"""What W&B's client needs of its server to log a run online, on this machine; ``close`` is a network that goes away."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Takes whatever it is sent; ``runs`` holds the names of the runs that were begun."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: set[str] = set()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def begun(self, count: int, seconds: float = 60) -> bool:
        """Wait until so many runs have begun."""
        deadline = time.monotonic() + seconds
        while len(self.runs) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(self.runs) == count

    def close(self) -> None:
        """From now on connections are refused."""
        self.shutdown()
        self.server_close()

    def answer(self, query: str, asked: dict[str, Any]) -> dict[str, Any]:
        if "viewer {" in query:
            return {"viewer": {"id": "1", "entity": "us", "username": "us", "flags": "{}", "teams": {"edges": []}}}
        if "upsertBucket" in query:
            self.runs.add(asked["name"])
            project = {"id": "2", "name": asked["project"], "entity": {"id": "3", "name": "us"}}
            run = {"id": "4", "name": asked["name"], "displayName": asked["name"], "project": project}
            return {"upsertBucket": {"inserted": True, "bucket": run}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in asked["files"]]
            return {"createRunFiles": {"runID": "4", "uploadHeaders": [], "files": files}}
        return {}


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            found = {"data": self.server.answer(" ".join(asked["query"].split()), asked["variables"] or {})}
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass
