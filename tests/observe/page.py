"""The status page in a real browser, while a service is away. Needs Debian's chromium-headless-shell, node and npm."""

import json
import os
import shutil
import subprocess

from stack import ROOT, fetch, wait_until

HERE = os.path.join(ROOT, "tests/observe/browser")
TOOLS = os.path.join(ROOT, ".tools/browser")
MARKUP = "<img src=x onerror=alert(1)>"
METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# Nothing may show these: they are in every variable and field that could hold a secret.
SECRET = "s3cr3t-never-shown"


BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


def browser():
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def missing():
    """What is not installed."""
    tools = [name for name in ("node", "npm") if not shutil.which(name)]
    return tools if browser() else [" or ".join(BROWSERS), *tools]


def install():
    os.makedirs(TOOLS, exist_ok=True)
    for name in ("package.json", "package-lock.json", "check.mjs"):
        shutil.copy(os.path.join(HERE, name), TOOLS)
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=TOOLS, check=True)


def event(number, reservation_id):
    payload = {"qty": 1, "user_id": SECRET, "error_message": SECRET, "payment_intent_id": f"pay-{SECRET}"}
    return json.dumps({"id": f"page-{number}", "type": "payment.failed", "reservation_id": reservation_id,
                       "event_id": "show", "payload": payload})


def check_page(checks, stack):
    """A worker whose Inventory service is away, seen by Chromium."""
    install()
    # The value of headers is a secret; user and password of a URL too.
    secrets = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET}", "OTEL_SDK_DISABLED": "true",
               "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:{SECRET}@127.0.0.1:9"}
    worker = stack.start_worker(INVENTORY_GRPC_ADDR="127.0.0.1:9", **secrets)
    stack.send([event(0, MARKUP)] + [event(n, f"page-rsv-{n}") for n in range(1, 40)])
    status = f"http://127.0.0.1:{worker.port}/status.json"
    wait_until("the outage is seen", lambda: '"state":"away"' in (fetch(status) or ""))
    done = subprocess.run(["node", "check.mjs", str(worker.port), browser()], cwd=TOOLS, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for one in found:
        checks.that(f"status page: {one['what']}", one["holds"], one["found"])
    checks.that("status page: every check ran", done.returncode == 0 and len(found) >= 34, (len(found), done.stderr))
    for path in ("/status", "/status.json", "/metrics"):
        text = fetch(f"http://127.0.0.1:{worker.port}{path}") or ""
        checks.that(f"{path} shows no secret", text and SECRET not in text)
        checks.that(f"{path} shows no receipt handle", "ReceiptHandle" not in text and "receipt_handle" not in text)
    checks.that("the log shows no secret", SECRET not in worker.output())
    worker.stop()
