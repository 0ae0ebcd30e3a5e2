# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_segmenter.predictor.ssl_config``: TLS of TensorFlow Serving.

The server takes key and certificates inside one text file (``--ssl_config_file``); Kubernetes
mounts them as files of their own. Run as an init container, this makes the one from the others.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_encoding


def ssl_config(cert: bytes, key: bytes, client_ca: bytes = b"") -> str:
    """TensorFlow Serving's ``SSLConfig`` as text.

    Parameters
    ----------
    cert, key : bytes
        The server's certificate chain and private key, PEM.
    client_ca : bytes
        Authority of client certificates, PEM; from then on each client needs one.
    """
    fields = {"server_cert": cert, "server_key": key}
    if client_ca:
        fields["custom_ca"] = client_ca
    lines = [f'{name}: "{text_encoding.CEscape(value, False)}"' for name, value in fields.items()]
    return "\n".join([*lines, f"client_verify: {'true' if client_ca else 'false'}"]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; exits with 2 and one sentence where a file cannot be read or written."""
    parser = argparse.ArgumentParser(
        prog="python -m granulo_segmenter.predictor.ssl_config",
        description="Write TensorFlow Serving's --ssl_config_file from PEM files.",
    )
    parser.add_argument("--cert", type=Path, required=True, help="the server's certificate")
    parser.add_argument("--key", type=Path, required=True, help="its private key")
    parser.add_argument("--client-ca", type=Path, help="authority of client certificates")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    try:
        client_ca = options.client_ca.read_bytes() if options.client_ca else b""
        text = ssl_config(options.cert.read_bytes(), options.key.read_bytes(), client_ca)
        # It holds the private key. The model server is another container of the same user.
        with os.fdopen(
            os.open(options.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
        ) as out:
            out.write(text)
    except OSError as error:
        sys.stderr.write(f"ssl_config: {error.filename}: {error.strerror}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
