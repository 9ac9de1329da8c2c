"""A collector of OpenTelemetry spans: OTLP over HTTP, decoded by the classes that OpenTelemetry publishes.

python server.py NAME PORT

POST /v1/traces takes spans, with the status that GET /respond?status=503 has set (200 at first). GET /spans returns what was
taken, as JSON.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

NAME = sys.argv[1]
spans = []
settings = {"status": 200, "refused": 0}


def plain(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def take(body):
    request = ExportTraceServiceRequest.FromString(body)
    # Every field that was sent has a name in the published messages.
    if request.SerializeToString() != body:
        raise ValueError("fields that OTLP does not have")
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                spans.append(
                    {
                        "resource": plain(of_resource.resource.attributes),
                        "scope": of_scope.scope.name,
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "name": span.name,
                        "kind": span.kind,
                        "nanos": span.end_time_unix_nano - span.start_time_unix_nano,
                        "start": span.start_time_unix_nano,
                        "status": span.status.code,
                        "attributes": plain(span.attributes),
                    }
                )


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
            return self.answer(415, b"", "text/plain")
        if settings["status"] != 200:
            settings["refused"] += 1
            return self.answer(settings["status"], b"", "text/plain")
        take(body)
        return self.answer(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/respond":
            settings["status"] = int(parse_qs(url.query)["status"][0])
        known = {"server": NAME, "spans": spans, "refused": settings["refused"]}
        self.answer(200, json.dumps(known).encode(), "application/json")

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Collector).serve_forever()
