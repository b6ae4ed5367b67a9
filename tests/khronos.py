"""The Khronos Group's own validator of glTF files, an npm package, asked where it is.

``npm install --prefix . --no-save gltf-validator`` puts it into node_modules here. On CI, which
says by NODE_PATH where it is, it has to be there.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """const fs = require('fs'), validator = require('gltf-validator');
    validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
        .then(report => console.log(JSON.stringify(report)));"""


def report(path):
    """Its report on a file, a dict; skips the test where it cannot be asked."""
    needed = {"CI", "NODE_PATH"} <= set(os.environ)
    if not shutil.which("node") and not needed:
        pytest.skip("there is no node on this machine")
    done = subprocess.run(["node", "-e", SCRIPT, str(path)], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    if "Cannot find module" in done.stderr and not needed:
        pytest.skip("the npm package gltf-validator is not installed")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def accepts(path):
    """Fails with its messages where it finds an error or a warning."""
    issues = report(path)["issues"]
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]
