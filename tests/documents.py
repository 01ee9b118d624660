"""Code blocks of the documents, for tests that run them."""

import re
from pathlib import Path


def python_blocks(path: Path) -> list[str]:
    """Returns the Python code blocks of a Markdown file, in order."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)
