"""The checksum of a JSON document that names its own: in manifests, and in entries of the log."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def of_document(body: dict[str, Any]) -> str:
    """SHA-256 of what a document says, 64 hex digits: however it is laid out, and in any order."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
