"""Flask behind the Mechanism, four workers sharing one block.

gunicorn --workers 4 --chdir examples/gateway flask_app:app
curl -i --data-binary @examples/gateway/message.xml http://127.0.0.1:8000/
"""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask, Response, request

from tmm_core import Mechanism
from tmm_core.gateway.wsgi import TrafficManagement

mechanism = Mechanism.open(os.environ.get("TMM_CONFIG", Path(__file__).with_name("tmm.toml")))

app = Flask(__name__)
app.wsgi_app = TrafficManagement(app.wsgi_app, mechanism)  # type: ignore[method-assign]


@app.route("/", methods=["GET", "POST"])
def service() -> Response:
    body = request.get_data()
    return Response(f"processed {len(body)} bytes in process {os.getpid()}\n", mimetype="text/plain")
