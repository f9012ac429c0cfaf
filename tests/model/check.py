"""Breadth-first search over model.py: `python3 check.py` runs everything; see README.md."""

import argparse
import sys
import time
from collections import deque
from multiprocessing import Pool

from model import Model, Violation


def explore(model, limit=3_000_000):
    start = model.initial()
    index, states, parents = {start: 0}, [start], [None]
    back = [[]]  # predecessors over steps that are no failures
    queue = deque([0])
    transitions = 0
    while queue:
        at = queue.popleft()
        for label, failure, nxt in model.successors(states[at]):
            transitions += 1
            if isinstance(nxt, Violation):
                return {
                    "states": len(states),
                    "transitions": transitions,
                    "bad": str(nxt),
                    "trace": [*path(parents, at), label],
                }
            to = index.get(nxt)
            if to is None:
                to = index[nxt] = len(states)
                states.append(nxt)
                parents.append((at, label))
                back.append([])
                queue.append(to)
                if len(states) > limit:
                    return {
                        "states": len(states),
                        "transitions": transitions,
                        "bad": "LIMIT",
                        "trace": [],
                    }
            if not failure:
                back[to].append(at)
    ok = bytearray(len(states))
    todo = [k for k, s in enumerate(states) if model.good(s)]
    ends = len(todo)
    for k in todo:
        ok[k] = 1
    while todo:
        for p in back[todo.pop()]:
            if not ok[p]:
                ok[p] = 1
                todo.append(p)
    stuck = ok.find(0)
    if stuck >= 0:
        return {
            "states": len(states),
            "transitions": transitions,
            "ends": ends,
            "bad": "2: from here no run without failures ends with every record committed once",
            "trace": path(parents, stuck),
            "last": states[stuck],
        }
    return {
        "states": len(states),
        "transitions": transitions,
        "ends": ends,
        "bad": None,
        "trace": [],
    }


def path(parents, at):
    steps = []
    while parents[at]:
        at, label = parents[at]
        steps.append(label)
    return steps[::-1]


SCENARIOS = {
    # name: (what it is about, keyword arguments of Model)
    "fence": (
        "two coordinators, trimming, puts of unknown outcome",
        {"records": 1, "retained": 1, "twin": 1, "unknown": 1, "features": ("trim",)},
    ),
    "fence-long": (
        "the same with answers always told",
        {"records": 2, "retained": 1, "twin": 1, "features": ("trim",)},
    ),
    "fence-unknown": (
        "the same without trimming",
        {"records": 2, "retained": 1, "twin": 1, "unknown": 1},
    ),
    "recovery": (
        "crashes and failed workers at any step",
        {"records": 2, "retained": 2, "crash": 1, "fail": 1, "unknown": 1},
    ),
    "numbers": (
        "two coordinators use the same checkpoint number",
        {"records": 2, "retained": 2, "twin": 1, "abort": 1},
    ),
    "subtasks": (
        "two sinks, torn commits",
        {"records": 2, "subtasks": 2, "retained": 1, "crash": 1, "fail": 1},
    ),
    "files": (
        "incremental files, one retained",
        {"records": 3, "retained": 1, "fail": 1, "coordinators": 1, "features": ("files",)},
    ),
    "savepoint": (
        "savepoint without stop; another job starts from it",
        {"records": 1, "retained": 1, "savepoint": 2, "twin": 1, "features": ("fork",)},
    ),
    "savepoint-crash": (
        "the same with a crash and a failure",
        {"records": 2, "retained": 1, "savepoint": 1, "crash": 1, "fail": 1, "features": ("fork",)},
    ),
    "stop": (
        "stop-with-savepoint beside another coordinator",
        {"records": 1, "retained": 1, "stop": 1, "twin": 1, "features": ("fork",)},
    ),
    "stop-fork": (
        "the same with a crash, declined",
        {"records": 2, "retained": 1, "stop": 1, "crash": 1, "abort": 1, "features": ("fork",)},
    ),
    "stop-crash": (
        "stopped, started, stopped",
        {"records": 1, "retained": 1, "stop": 2, "crash": 1, "unknown": 1, "start": 1},
    ),
    "upgrade": (
        "stop, upgrade with hold, rollback; a crash",
        {"records": 2, "retained": 1, "stop": 1, "upgrade": 1, "rollback": 1, "crash": 1},
    ),
    "upgrade-fail": (
        "the same with a failed worker too",
        {
            "records": 1,
            "retained": 1,
            "stop": 1,
            "upgrade": 1,
            "rollback": 1,
            "fail": 1,
            "crash": 1,
        },
    ),
    "upgrade-two": (
        "the same with two coordinators",
        {"records": 1, "retained": 1, "stop": 1, "upgrade": 1, "rollback": 1, "twin": 1},
    ),
    "upgrade-last": (
        "upgrade from the newest checkpoint, rollback",
        {
            "records": 2,
            "retained": 1,
            "upgrade": 1,
            "rollback": 1,
            "crash": 2,
            "features": ("last",),
        },
    ),
    "upgrade-last-two": (
        "the same beside the old coordinator",
        {
            "records": 2,
            "retained": 1,
            "upgrade": 1,
            "rollback": 1,
            "twin": 1,
            "features": ("last",),
        },
    ),
    "upgrade-cancel": (
        "upgrade with hold, cancelled in it; started again or rolled back",
        {"records": 2, "retained": 1, "stop": 1, "upgrade": 1, "cancel": 1, "rollback": 1},
    ),
    "zombie": (
        "a pod of the old revision comes back",
        {"records": 1, "retained": 1, "stop": 1, "upgrade": 1, "twin": 1, "features": ("zombie",)},
    ),
    "hold-savepoint": (
        "savepoint asked for in a hold",
        {
            "records": 2,
            "retained": 1,
            "stop": 1,
            "upgrade": 1,
            "savepoint": 1,
            "stable": 2,
            "features": ("fork",),
        },
    ),
    "cancel": (
        "cancel and start again",
        {"records": 2, "retained": 1, "cancel": 1, "crash": 1, "start": 1},
    ),
    "again": (
        "log deleted, made again from a savepoint",
        {"records": 2, "retained": 1, "stop": 2, "wipe": 1, "coordinators": 1},
    ),
}
DEEP = {
    "fence-deep": (
        "longer, with trimming and an unknown put",
        {"records": 2, "retained": 1, "twin": 1, "unknown": 1, "features": ("trim",)},
    ),
    "three": (
        "three coordinators",
        {"records": 1, "retained": 1, "coordinators": 3, "twin": 2, "features": ("trim",)},
    ),
    "upgrade-deep": (
        "upgrade with crash and failure",
        {
            "records": 2,
            "retained": 1,
            "stop": 1,
            "upgrade": 1,
            "rollback": 1,
            "fail": 1,
            "crash": 1,
        },
    ),
}
HOLES = {
    # switch: the scenario that shows it
    "NO_LISTING_AFTER_CREATE": "fence",
    "ABSENT_MEANS_FAILED": "fence",
    "FILES_WITHOUT_ATTEMPT": "numbers",
    "BASE_AS_LAST_HEARD": "files",
    "SAVEPOINT_BEFORE_ITS_CHECKPOINT": "savepoint-crash",
    "SAVEPOINT_FILES_BY_REQUEST": "savepoint",
    "SAVEPOINT_IN_HOLD": "hold-savepoint",
    "STOP_METADATA_BEFORE_END": "stop",
    "RETENTION_DELETES_THE_SAVEPOINTS_FILES": "stop-crash",
    "RETENTION_FORGETS_THE_HOLD": "upgrade-last-two",
    "RECOVERY_COMMITS_IN_HOLD": "upgrade-fail",
    "ROLLBACK_AFTER_RELEASE": "upgrade-two",
    "RECOVERS_ANY_REVISION": "zombie",
    "START_WITHOUT_AFTER": "stop-crash",
    "CANCEL_WITHOUT_COMMITS": "cancel",
    "HELD_IS_FORGOTTEN_AFTER_A_CANCEL": "upgrade-cancel",
    "FORK_FROM_AN_ORPHAN": "stop-fork",
    "NUMBERS_BELOW_THE_RESTORED": "again",
    "LOSER_PUTS_THE_SAME_AGAIN": "fence-long",
}


def run(job):
    name, holes, kw, limit = job
    t = time.time()
    result = explore(Model(holes, **kw), limit)
    result.update(name=name, holes=holes, seconds=time.time() - t)
    return result


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--only")
    ap.add_argument("--hole")
    ap.add_argument("--limit", type=int, default=2_000_000)
    ap.add_argument("--no-holes", action="store_true")
    ap.add_argument("--no-mended", action="store_true")
    ap.add_argument(
        "--deep", action="store_true", help="only the larger bounds (minutes, several GB)"
    )
    args = ap.parse_args()
    if args.deep:
        SCENARIOS, args.no_holes = DEEP, True
    jobs = []
    if not args.no_holes:
        jobs += [
            (n, (h,), SCENARIOS[n][1], args.limit)
            for h, n in HOLES.items()
            if args.hole in (None, h) and args.only in (None, n)
        ]
    if not args.hole and not args.no_mended:
        jobs += [
            (n, (), kw, args.limit) for n, (_, kw) in SCENARIOS.items() if args.only in (None, n)
        ]
    wrong = 0
    with Pool(2) as pool:
        for r in pool.imap(run, jobs):
            hole = "".join(r["holes"])
            as_expected = bool(r["bad"]) == bool(hole) and r["bad"] != "LIMIT"
            wrong += not as_expected
            print(
                f"{'ok ' if as_expected else 'NOT'} {r['name']:16} {hole or 'mended':32} {r['states']:>8} states "
                f"{r['transitions']:>9} steps {r['seconds']:6.1f} s  {r['bad'] or 'all hold'}",
                flush=True,
            )
            if r["trace"]:
                print(
                    "".join(f"      {k}. {step}\n" for k, step in enumerate(r["trace"], 1)),
                    flush=True,
                )
    sys.exit(wrong > 0)
