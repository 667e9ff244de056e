"""A small server that speaks SandboxFusion's ``POST /run_code`` and runs programs.

It isolates nothing: send it the harmless programs of a test only.
"""

import base64
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RunCodeHandler(BaseHTTPRequestHandler):
    """``POST /run_code``; ``server.failures`` are HTTP statuses or bodies to answer with first."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.paths.append(self.path)
        failure = self.server.failures.pop(0) if self.server.failures else None
        if isinstance(failure, int):
            self.send_error(failure)
            return
        body = failure if failure is not None else json.dumps(run_request(request))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_arguments):
        pass


def run_request(request):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in request["files"].items():
            (Path(folder) / name).write_bytes(base64.b64decode(content))
        begin = time.monotonic()
        result = {"status": "Finished", "return_code": None, "stdout": "", "stderr": ""}
        try:
            done = subprocess.run(
                [sys.executable, "-s", "-c", request["code"]],
                input=request["stdin"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=request["run_timeout"],
            )
            result |= {"return_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        except subprocess.TimeoutExpired:
            result["status"] = "TimeLimitExceeded"
        found = [Path(folder) / name for name in request["fetch_files"]]
        files = {
            path.name: base64.b64encode(path.read_bytes()).decode()
            for path in found
            if path.exists()
        }
        result["execution_time"] = time.monotonic() - begin
    status = "Success" if result["return_code"] == 0 else "Failed"
    return {"status": status, "message": "", "run_result": result, "files": files}


@contextmanager
def serve_run_code() -> Iterator[ThreadingHTTPServer]:
    """The running server; it keeps ``requests`` and their ``paths``."""
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), RunCodeHandler)
    http_server.failures, http_server.requests, http_server.paths = [], [], []
    thread = threading.Thread(target=http_server.serve_forever)
    thread.start()
    try:
        yield http_server
    finally:
        http_server.shutdown()
        http_server.server_close()
        thread.join(10)
