"""What all parts of the manifest share: the base model, its field types, and how a rule objects.

Names are camelCase in YAML and snake_case with their unit in Python: `interval` is `interval_ms`.
Rules between fields are validators of the later field, so that one wrong field hides no other.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.types import Strict
from pydantic_core import PydanticCustomError

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
NOT_A_STORAGE = "is not a storage; write s3://bucket/folder, file:///folder or a folder"
NAME_LENGTH_MAX = 40
"""Room for `-coordinator` and a hash within the 63 characters of a Kubernetes label."""
JOB_ID_LENGTH_MAX = 63 + 1 + NAME_LENGTH_MAX
JOB_ID = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])?[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
NOT_A_JOB_ID = (
    f"is not a job id; write a name of at most {NAME_LENGTH_MAX} a-z, 0-9 and -, "
    "or the NAMESPACE.NAME of a StreamJob"
)
HEARTBEATS_MS_MIN = 2_000
"""What waits for heartbeats must outlast two of them: a shorter time fails what works."""
NOT_OF_HEARTBEATS = f"must be at least {HEARTBEATS_MS_MIN // 1000}s; a heartbeat comes every second"
_JOB_ID = re.compile(JOB_ID, re.ASCII)


def in_yaml(attribute: str) -> str:
    """The field's name in YAML: `min_pause_ms` is written `minPause`."""
    for unit in ("_ms", "_bytes"):
        attribute = attribute.removesuffix(unit)
    first, *rest = attribute.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)


class SpecModel(BaseModel):
    """A part of the manifest: immutable, and it knows all its fields."""

    model_config = ConfigDict(
        alias_generator=in_yaml,
        extra="forbid",
        frozen=True,
        validate_default=True,
        serialize_by_alias=True,
    )


def wrong(message: str, *, at: str | None = None) -> PydanticCustomError:
    """An objection in our own words; `at` is the field meant, when a whole part was looked at."""
    return PydanticCustomError("wrong", "{message}", {"message": message, "at": at})


def absent(message: str) -> PydanticCustomError:
    """Like `wrong`, about a field that is needed and not there."""
    return PydanticCustomError("absent", "{message}", {"message": message, "at": None})


def _dns_label(text: str) -> str:
    if len(text) > NAME_LENGTH_MAX:
        raise wrong(f"has {len(text)} characters; at most {NAME_LENGTH_MAX} are allowed")
    if not _LABEL.fullmatch(text):
        raise wrong(
            f'"{text}" is not a name; use a-z, 0-9 and -, beginning and ending with neither -'
        )
    return text


def _job_id(text: str) -> str:
    if not _JOB_ID.fullmatch(text):
        raise wrong(f"{json.dumps(text, ensure_ascii=False)} {NOT_A_JOB_ID}")
    return text


def is_storage(url: str) -> bool:
    """Whether a text names a storage: s3:// with a bucket, file:// with a folder, or a folder."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return bool(url) and url.isprintable() and not url.startswith(("s3:", "file:"))
    named = rest if scheme == "file" else rest.partition("/")[0]
    return scheme in {"s3", "file"} and bool(named) and url.isprintable()


def _storage(url: str) -> str:
    if not is_storage(url):
        raise wrong(f"{json.dumps(url, ensure_ascii=False)} {NOT_A_STORAGE}")
    return url


def _positive(ms: int) -> int:
    if ms == 0:
        raise wrong("must be longer than 0s")
    return ms


def _of_heartbeats(ms: int) -> int:
    if ms < HEARTBEATS_MS_MIN:
        raise wrong(NOT_OF_HEARTBEATS)
    return ms


Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)]
PositiveCount = Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]
"""The name of another Kubernetes object."""
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Name = Annotated[
    str, AfterValidator(_dns_label), Field(json_schema_extra={"maxLength": NAME_LENGTH_MAX})
]
JobIdText = Annotated[
    str, AfterValidator(_job_id), Field(json_schema_extra={"maxLength": JOB_ID_LENGTH_MAX})
]
"""A name, or what a StreamJob without one is called by default, so that state can change namespaces."""
Storage = Annotated[str, Field(max_length=1024), AfterValidator(_storage)]
LongerThanZero = AfterValidator(_positive)
OfHeartbeats = AfterValidator(_of_heartbeats)
FreeForm = dict[str, Any]
