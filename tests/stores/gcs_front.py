"""Speaks to obstore as Google Cloud Storage does, and lets fake-gcs-server keep the objects.

Google takes an object by two interfaces, XML and JSON. Rust's object_store uses the first, fake-gcs-server takes
uploads by the second alone: this front hands a put, a copy and a multipart upload on as JSON ones, with their condition
(`x-goog-if-generation-match`), and everything else as it is,
but for a missing bucket, which it calls by Google's name. What is tested so is our use of the interface, and the
fake's care for conditions; Google's own servers were not asked.

    python gcs_front.py <port> <port of fake-gcs-server>
"""

import itertools
import json
import sys
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

UPSTREAM = int(sys.argv[2])
PARTS: dict[str, dict[int, bytes]] = {}
NUMBERS = itertools.count(1)
PASSED_ON = ("accept", "range", "content-type", "content-length")


class Front(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets

    def do_GET(self) -> None:
        self._pass_on()

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        query, body = self._query(), self._body()
        if "uploadId" in query:
            PARTS[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, b"", {"ETag": f'"{query["partNumber"]}"'})
        elif "x-goog-copy-source" in self.headers:
            bucket, _, source = unquote(self.headers["x-goog-copy-source"]).lstrip("/").partition("/")
            target_bucket, target = self._object()
            path = f"/storage/v1/b/{bucket}/o/{quote(source, '')}/rewriteTo/b/{target_bucket}/o/{quote(target, '')}"
            status, data, _ = self._ask("POST", path, b"{}", {"content-type": "application/json"})
            self._answer(status, data)
        else:
            self._upload(body)

    def do_POST(self) -> None:
        query, body = self._query(), self._body()
        if "uploads" in query:
            bucket, key = self._object()
            upload = str(next(NUMBERS))
            PARTS[upload] = {}
            names = f"<Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{upload}</UploadId>"
            self._answer(200, f"<InitiateMultipartUploadResult>{names}</InitiateMultipartUploadResult>".encode())
        elif "uploadId" in query:
            parts = PARTS.pop(query["uploadId"])
            self._upload(b"".join(parts[number] for number in sorted(parts)), completed=True)
        else:
            self._pass_on(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _upload(self, data: bytes, completed: bool = False) -> None:
        bucket, key = self._object()
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={quote(key, '')}"
        if (generation := self.headers.get("x-goog-if-generation-match")) is not None:
            path += f"&ifGenerationMatch={generation}"
        edge = b"--edge-of-a-part\r\n"
        head = edge + b"content-type: application/json\r\n\r\n{}\r\n" + edge
        body = head + b"content-type: application/octet-stream\r\n\r\n" + data + b"\r\n--edge-of-a-part--\r\n"
        status, found, _ = self._ask(
            "POST", path, body, {"content-type": "multipart/related; boundary=edge-of-a-part"}
        )
        if status != 200:
            self._answer(status, found)
            return
        tag = json.loads(found)["etag"]
        answer = (
            f"<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>" if completed else ""
        )
        self._answer(200, answer.encode(), {"ETag": f'"{tag}"'})

    def _pass_on(self, body: bytes | None = None) -> None:
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        status, data, response = self._ask(self.command, self.path, body, headers)
        if status == 500 and not self._object()[1]:  # the fake's word for a bucket that is not there
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            return
        kept = ("content-type", "etag", "last-modified", "content-range", "x-goog-generation", "location")
        found = {name: value for name, value in response.getheaders() if name.lower() in kept}
        if self.command == "HEAD":
            found["content-length"] = response.getheader("content-length", "0")
        self._answer(status, data, found)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, HTTPResponse]:
        upstream = HTTPConnection("127.0.0.1", UPSTREAM)
        upstream.request(method, path, body, headers)
        response = upstream.getresponse()
        data = response.read()
        upstream.close()
        return response.status, data, response

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"content-length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query, True).items()}

    def _object(self) -> tuple[str, str]:
        bucket, _, key = urlsplit(self.path).path.lstrip("/").partition("/")
        return bucket, unquote(key)


class Server(ThreadingHTTPServer):
    """Lets more clients wait to be let in than come at once: one turned away tries again a second later."""

    request_queue_size = 128


Server(("127.0.0.1", int(sys.argv[1])), Front).serve_forever()
