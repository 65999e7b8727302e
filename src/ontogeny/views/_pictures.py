"""Pictures that rows carry as text: small PNGs as data URLs, and nothing else."""

import base64
import binascii
from typing import Any

LARGEST = 400_000
"""Characters of a picture; a longer one is not drawn."""
_PNG = "data:image/png;base64,"


def checked_picture(text: Any) -> str:
    """The text if it is a PNG as a data URL, or nothing: no other address is ever drawn."""
    if not isinstance(text, str) or not text.startswith(_PNG) or len(text) > LARGEST:
        return ""
    try:
        content = base64.b64decode(text.removeprefix(_PNG), validate=True)
    except (binascii.Error, ValueError):
        return ""
    return text if content.startswith(b"\x89PNG\r\n\x1a\n") else ""
