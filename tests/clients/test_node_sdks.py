"""The official SDKs for Node, in node/."""

import os
import pathlib
import subprocess

from conftest import MODEL


def test_the_official_sdks(server):
    node = pathlib.Path(__file__).parent / "node"
    assert (node / "node_modules").is_dir(), f"npm ci --prefix {node} installs the SDKs"
    environment = os.environ | {"TRELLIS_URL": server.url, "TRELLIS_MODEL": MODEL}
    run = subprocess.run(["node", "--test", str(node)], env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
