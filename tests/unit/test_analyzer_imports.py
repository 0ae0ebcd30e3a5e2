# SPDX-License-Identifier: GPL-3.0-or-later
"""A server starts without what only its workers need."""

import subprocess
import sys


def test_the_servicer_imports_neither_matplotlib_nor_tensorflow() -> None:
    code = (
        "import sys, granulo_analyzer.servicer, granulo_analyzer.tasks;"
        "print(*sorted({'matplotlib', 'tensorflow', 'bpy', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
