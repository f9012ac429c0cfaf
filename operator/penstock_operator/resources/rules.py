"""The rules of a StreamJob and a Savepoint that the API server checks by itself, as CEL.

They are the manifest's own rules (penstock.spec) in the API server's language, in the same words, and
those that only it can check because it has the object before the change. A sentence begins after the
field's name. A value that was set may have been removed by an earlier change, so what is fixed is
looked at from the root, where removing is a change too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from penstock.core.keygroups import MAX_PARALLELISM_LIMIT
from penstock.spec.parts.fields import (
    HEARTBEATS_MS_MIN,
    JOB_ID,
    NAME_LENGTH_MAX,
    NOT_A_JOB_ID,
    NOT_OF_HEARTBEATS,
    in_yaml,
)
from penstock.spec.parts.moves import STRATEGY_FIELDS, ErrorPolicy, Restart
from penstock.spec.parts.pods import Volume
from penstock.spec.parts.quantities import WRITE_DURATION, WRITE_SIZE, format_duration
from penstock.spec.parts.snapshots import BUILT_IN_BACKENDS
from penstock.spec.streamjob import SCRIPT_LENGTH_MAX_BYTES
from penstock_operator.resources.streamjob import NOT_SHARED

_LABEL = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*"
_CRON_FIELD = "[0-9*,/-]+"
_NOT_A_NAME = "is not a name; use a-z, 0-9 and -, beginning and ending with neither -"


@dataclass(frozen=True, slots=True)
class Rule:
    """Must be true. `message` is told if not; `words` is CEL that makes it with values in it.

    `at` is the field meant, as a path below where the rule stands. `is_forbidden` when it is the
    change and not the value that is wrong.
    """

    rule: str
    message: str
    words: str | None = None
    at: str | None = None
    is_forbidden: bool = False

    def schema(self) -> dict[str, str]:
        """As it stands in `x-kubernetes-validations`."""
        found = {"rule": self.rule, "message": self.message}
        if self.words:
            found["messageExpression"] = self.words
        if self.at:
            found["fieldPath"] = self.at
        if self.is_forbidden:
            found["reason"] = "FieldValueForbidden"
        return found


def _quoted(message: str) -> str:
    """CEL of a sentence about a text: the text in quotes, then the message."""
    return f"""'"' + self + '" {message}'"""


def _pattern(pattern: str, message: str) -> Rule:
    return Rule(f"self.matches('{pattern}')", message, words=_quoted(message))


def _default(model: type[Restart | Volume], attribute: str) -> str:
    value = model.model_fields[attribute].default
    assert isinstance(value, str), attribute
    return value


def _given(root: str, path: str) -> str:
    """CEL that the field is there. Not `.?`: through it the API server loses sight of lengths."""
    names = path.split(".")
    tests = (f"has({root}.{'.'.join(names[:end])})" for end in range(1, len(names) + 1))
    return f"({' && '.join(tests)})"


def _or_default(root: str, path: str, default: str | int) -> str:
    return f"({_given(root, path)} ? {root}.{path} : {default!r})"


# ── what is fixed once it is set ─────────────────────────────────────────────────────────────────


def _fixed(path: str, message: str) -> Rule:
    """Neither changed nor removed once it is set; it may be set later."""
    return Rule(
        f"!{_given('oldSelf', path)} || {_given('self', path)} && self.{path} == oldSelf.{path}",
        message,
        at=f".{path}",
        is_forbidden=True,
    )


def _as_in_force(name: str, message: str) -> Rule:
    """Set later, it must be what the job runs with; the status says so."""
    in_force = _given("self", f"status.{name}")
    return Rule(
        f"has(oldSelf.spec.{name}) || !has(self.spec.{name}) || !{in_force}"
        f" || self.spec.{name} == self.status.{name}",
        message,
        at=f".spec.{name}",
        is_forbidden=True,
    )


_KEY_GROUPS = "is the number of key groups that the state is divided into, fixed for the job's life"
_OWNER = (
    "names the owner of the state and cannot change; "
    "delete the StreamJob and apply it again with restore.adopt"
)


def _size(root: str) -> str:
    size = _or_default(root, "spec.worker.volume.size", _default(Volume, "size_bytes"))
    return f"quantity({size})"


_OF_THE_WHOLE = (
    Rule(
        f"self.metadata.name.size() <= {NAME_LENGTH_MAX}",
        f"metadata.name has too many characters; at most {NAME_LENGTH_MAX} are allowed",
    ),
    Rule(
        f"self.metadata.name.matches('{_LABEL}')",
        f"metadata.name {_NOT_A_NAME}",
    ),
)

_STREAMJOB = (
    *_OF_THE_WHOLE,
    _fixed("spec.maxParallelism", f"{_KEY_GROUPS}; it is neither changed nor removed"),
    _as_in_force("maxParallelism", f"{_KEY_GROUPS}; it must be what status.maxParallelism says"),
    _fixed("spec.jobId", _OWNER),
    _as_in_force("jobId", _OWNER),
    _fixed(
        "spec.checkpoints.storage",
        "holds the job's log and is neither changed nor removed; "
        "to move, take a savepoint and apply a new StreamJob with restore.from",
    ),
    _fixed(
        "spec.worker.volume.storageClassName",
        "is that of disks that exist; it is neither changed nor removed",
    ),
    Rule(
        f"{_size('self')}.compareTo({_size('oldSelf')}) >= 0",
        "is smaller than it was; a volume may grow and never shrinks",
        at=".spec.worker.volume.size",
        is_forbidden=True,
    ),
    # Only a new parallelism is looked at: a status that comes to know a smaller number of key groups
    # could not be written otherwise.
    Rule(
        "self.spec.parallelism == oldSelf.spec.parallelism || self.spec.parallelism"
        f" <= {_or_default('self', 'status.maxParallelism', MAX_PARALLELISM_LIMIT)}",
        "is more than status.maxParallelism, the number of key groups, fixed for the job's life",
        at=".spec.parallelism",
    ),
)

# ── one part, one field ──────────────────────────────────────────────────────────────────────────

_SPEC = (
    Rule(
        "has(self.entrypoint) || has(self.script)",
        "is missing; write module:function, or the code itself in script",
        at=".entrypoint",
    ),
    Rule(
        "!has(self.entrypoint) || !has(self.script)",
        "script is given as well; a job has one of the two",
        at=".entrypoint",
    ),
    Rule(
        "!has(self.maxParallelism) || self.parallelism <= self.maxParallelism",
        "is more than maxParallelism",
        at=".parallelism",
    ),
)

_SCRIPT = (
    Rule(
        f"size(bytes(self)) <= {SCRIPT_LENGTH_MAX_BYTES}",
        "is too long; at most 64 KiB fit, put more into an image",
    ),
    Rule(r"self.matches('[^\\s]')", "is empty; write the job's Python code"),
)

_PARALLELISM = (
    Rule("self != 0", "is 0; to stop the job and keep its state, write desiredState: Suspended"),
    Rule("self >= 0", "is negative; at least 1 is needed"),
)

_STORAGE = (_pattern("^s3://[^/]+", NOT_SHARED),)

_CHECKPOINTS = (
    Rule(
        "!has(self.minPause) || !self.minPause.matches('[1-9]') || self.maxConcurrent == 1",
        "needs maxConcurrent 1",
        at=".minPause",
    ),
)

_POLICY = _or_default("self", "policy", str(ErrorPolicy.FAIL))
_ERRORS = (
    Rule(
        f"{_POLICY} != '{ErrorPolicy.DEAD_LETTER}' || has(self.deadLetters)",
        "is missing; policy DeadLetter needs a folder or s3:// URL",
        at=".deadLetters",
    ),
    Rule(
        f"!has(self.deadLetters) || {_POLICY} == '{ErrorPolicy.DEAD_LETTER}'",
        "needs policy DeadLetter",
        words=f"'needs policy DeadLetter, which is ' + {_POLICY}",
        at=".deadLetters",
    ),
)


def _goes_with(attribute: str) -> Rule:
    name = in_yaml(attribute)
    takers = [str(s) for s, attributes in STRATEGY_FIELDS.items() if attribute in attributes]
    needs = f"needs strategy {' or '.join(takers)}"
    fits = " || ".join(f"self.strategy == '{taker}'" for taker in takers)
    return Rule(
        f"!has(self.{name}) || {fits}",
        needs,
        words=f"'{needs}, which is ' + self.strategy",
        at=f".{name}",
    )


def _delay(attribute: str) -> str:
    return f"duration({_or_default('self', in_yaml(attribute), _default(Restart, attribute))})"


_RESTART = (
    *(_goes_with(name) for name in Restart.model_fields if name != "strategy"),
    Rule(
        f"{_delay('max_delay_ms')} >= {_delay('initial_delay_ms')}",
        "is shorter than initialDelay",
        at=".maxDelay",
    ),
)

_OF_HEARTBEATS = Rule(
    f"duration(self) >= duration('{format_duration(HEARTBEATS_MS_MIN)}')", NOT_OF_HEARTBEATS
)

STREAMJOB_RULES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {
        "": _STREAMJOB,
        "spec": _SPEC,
        "spec.script": _SCRIPT,
        "spec.entrypoint": (_pattern(f"^{_NAME}$", "is not module:function, as in wordcount:job"),),
        "spec.parallelism": _PARALLELISM,
        "spec.jobId": (_pattern(f"^{JOB_ID}$", NOT_A_JOB_ID),),
        "spec.state.backend": (
            _pattern(
                f"^({'|'.join(BUILT_IN_BACKENDS)}|{_NAME})$",
                f"is none of {', '.join(BUILT_IN_BACKENDS)}; nor a factory, package.module:name",
            ),
        ),
        "spec.state.rocksdb.localDirectories[]": (_pattern("^/", "is not an absolute path"),),
        "spec.checkpoints": _CHECKPOINTS,
        "spec.checkpoints.storage": _STORAGE,
        "spec.savepoints.storage": _STORAGE,
        "spec.savepoints.schedule": (
            _pattern(
                rf"^\\s*({_CRON_FIELD}\\s+){{4}}{_CRON_FIELD}\\s*$",
                'is not a schedule; write five numbers or *: "0 3 * * *" is every day at 03:00 UTC',
            ),
        ),
        "spec.worker.heartbeatTimeout": (_OF_HEARTBEATS,),
        "spec.worker.progressTimeout": (_OF_HEARTBEATS,),
        "spec.errors": _ERRORS,
        "spec.restart": _RESTART,
    }
)
"""By path; `[]` is an item of a list."""

SAVEPOINT_RULES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {
        "spec.jobName": (_pattern(_LABEL, _NOT_A_NAME),),
        "": (
            _fixed("spec.jobName", "is fixed; a savepoint is of one job"),
            _fixed("spec.format", "is fixed; a savepoint is written once"),
        ),
    }
)

LONGER_THAN_ZERO = Rule("self.matches('[1-9]')", "must be longer than 0s")


def of_pattern(pattern: str) -> tuple[Rule, ...]:
    """The sentence for a text that must fit a pattern which the schema itself asks for."""
    unit = (
        f"is not a duration; {WRITE_DURATION}"
        if "ms" in pattern
        else f"is not a size; {WRITE_SIZE}"
    )
    return (_pattern(pattern, unit),)
