"""A stand-in for what KEDA's operator and kube-state-metrics show of a cluster: the queue's real depth, and as many pods as there are
workers. Standard library only.
"""

import http.server
import threading

NAME = "reservation-worker"
# Where the worker is released. KEDA is in a namespace of its own, so that its metrics have this one as `exported_namespace`.
NAMESPACE, KEDAS = "tickets", "keda"
PODS_MAX = 50


class Cluster:
    """Serves the metrics on a free port until closed."""

    def __init__(self, depth, pods):
        """`depth` and `pods` return the queue's messages and the pods there are."""
        self.depth, self.pods = depth, pods
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                text = cluster.metrics().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def metrics(self):
        depth, pods = self.depth(), self.pods()
        of_object = f'namespace="{NAMESPACE}",scaledObject="{NAME}-scaler"'
        of_trigger = f'{of_object},metric="s0-aws-sqs-reservations",scaler="awsSqsQueueScaler",triggerIndex="0",type="scaledobject"'
        values = {
            f"keda_scaler_metrics_value{{{of_trigger}}}": depth,
            f"keda_scaler_active{{{of_trigger}}}": int(depth > 0),
            f"keda_scaled_object_paused{{{of_object}}}": 0,
            f"keda_scaled_object_errors_total{{{of_object}}}": 0,
            f'kube_deployment_status_replicas{{namespace="{NAMESPACE}",deployment="{NAME}"}}': pods,
            f'kube_deployment_spec_replicas{{namespace="{NAMESPACE}",deployment="{NAME}"}}': pods,
            f'kube_horizontalpodautoscaler_spec_max_replicas{{namespace="{NAMESPACE}",horizontalpodautoscaler="keda-hpa-{NAME}-scaler"}}': PODS_MAX,
        }
        return "".join(f"{name} {value}\n" for name, value in values.items())
