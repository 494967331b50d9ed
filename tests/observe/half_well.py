#!/usr/bin/env python3
"""A Reservation API in a partial outage: it rejects all calls, or answers 503 for a tenth of the reservations.

  tests/observe/half_well.py PORT refuses|fails-for-a-tenth
"""

import http.server
import json
import sys
import zlib


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PATCH(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reservation = self.path.rsplit("/", 1)[1]
        if self.server.refuses:
            self.answer(403, {"error": {"code": "FORBIDDEN", "message": "the caller may not do that", "trace_id": ""}})
        elif zlib.crc32(reservation.encode()) % 10 == 0:
            self.answer(503, {"error": {"code": "UNAVAILABLE", "message": "the shard is away", "trace_id": ""}})
        else:
            self.answer(200, {"reservation_id": reservation, "status": asked["status"]})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 100
    daemon_threads = True


def main():
    port, how = sys.argv[1:]
    server = Server(("127.0.0.1", int(port)), Handler)
    server.refuses = {"refuses": True, "fails-for-a-tenth": False}[how]
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
