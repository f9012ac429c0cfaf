"""Explicit-state model of the job's log, checkpoints, savepoints, holds and ends (4-checkpoints.md).

A state is one immutable tuple. `successors` lists (label, is_failure, next state or Violation).
Everything a coordinator does is cut at each point where it may be paused, die, or be overtaken.
Facts known to no process (is an entry in the lineage?) are kept as ghosts and used by checks only.
A HOLE is a named switch which puts a rule of the protocol back to what the text said or left open.
"""

# ruff: noqa: PYI024 - a field holds values of several types

from collections import namedtuple

# ---- values ------------------------------------------------------------------------------------
# Ref: ("c", n) = chk-n/_metadata, ("s", r) = the savepoint of request r.   Tx: (attempt, n, subtask[, life])
Entry = namedtuple("Entry", "kind nonce att rev ret rp nxt hold end by")
#   ret: retained checkpoint numbers; rp: recovery point (Ref); hold: (Ref, after) | None
#   end: (kind, committed) | None; by: the order that an opening obeys | None
Manifest = namedtuple("Manifest", "att num pos pend base")
Attempt = namedtuple("Attempt", "att pos lo holds auth rp stopped conf")
#   holds: transactions its sinks remember; auth: "commit all <= auth" was sent (delivered late, twice, never)
#   conf: newest checkpoint its workers know to be complete (base of incremental ones)
Coord = namedtuple("Coord", "pc inc rev seq view intent att num acked sp cnt delq")
#   pc: off idle wait ending run put unsure created
State = namedtuple("State", "log top files man txs atts cos fly orders life budget")
OFF = Coord("off", 0, 1, 0, None, None, 0, 0, None, None, 0, ())


class Violation(Exception):
    pass


def get(pairs, key):
    for k, v in pairs:
        if k == key:
            return v
    return None


def put(pairs, key, value):
    return tuple(sorted([(k, v) for k, v in pairs if k != key] + [(key, value)]))


def drop(pairs, keys):
    return tuple((k, v) for k, v in pairs if k not in keys)


class Model:
    def __init__(
        self,
        holes=(),
        *,
        records=2,
        subtasks=1,
        retained=2,
        coordinators=2,
        stable=1,
        features=(),
        **budget,
    ):
        self.holes, self.features = frozenset(holes), frozenset(features)
        self.K, self.R = subtasks, records * subtasks
        self.retained, self.stable, self.slots = retained, stable, coordinators
        self.names = (
            "crash",
            "twin",
            "fail",
            "abort",
            "unknown",
            "savepoint",
            "stop",
            "start",
            "upgrade",
            "rollback",
            "cancel",
            "wipe",
        )
        self.budget0 = tuple(budget.pop(n, 0) for n in self.names)
        assert not budget, budget
        self.ix = {n: i for i, n in enumerate(self.names)}

    def hole(self, name):
        return name in self.holes

    def initial(self):
        opened = Entry("opened", (0, 0), 1, 1, (), None, 1, None, None, None)
        leader = OFF._replace(pc="run", seq=1, view=opened, att=1, num=1)
        return State(
            ((1, opened),),
            1,
            frozenset(),
            (),
            (),
            ((1, Attempt(1, 0, 0, (), 0, None, False, 0)),),
            (leader,) + (OFF,) * (self.slots - 1),
            (),
            (),
            0,
            self.budget0,
        )

    # ---- budgets of failures and of orders -----------------------------------------------------
    def has(self, s, name):
        return s.budget[self.ix[name]] > 0

    def spend(self, s, name):
        i = self.ix[name]
        return s._replace(budget=(*s.budget[:i], s.budget[i] - 1, *s.budget[i + 1 :]))

    # ---- the external sink ---------------------------------------------------------------------
    def content(self, tx, span):
        return [r for r in range(span[0] + 1, span[1] + 1) if r % self.K == tx[2]]

    def committed(self, s):
        return [r for tx, (lo, hi, st) in s.txs if st == "C" for r in self.content(tx, (lo, hi))]

    def commit(self, s, tx, who):
        lo, hi, st = get(s.txs, tx)
        if st == "A":
            raise Violation(
                f"2: {who} is told to commit {tx}, which was aborted: its records are lost"
            )
        return s._replace(txs=put(s.txs, tx, (lo, hi, "C")))

    # ---- invariants on every state -------------------------------------------------------------
    def check(self, s):
        done = self.committed(s)
        if len(done) != len(set(done)):
            raise Violation(f"1: records committed twice: {sorted(done)}")
        if not s.log or s.log[-1][0] != s.top:
            raise Violation("3: the newest entry was deleted")
        newest = s.log[-1][1]
        refs = [("c", n) for n in newest.ret] + [
            r for r in (newest.rp, newest.hold and newest.hold[0]) if r
        ]
        for ref in refs + [r for r, _ in s.man if r[0] == "s"]:
            self.whole(s, ref)
        self.prefix(s, newest.rp, done, "the recovery point")
        if newest.hold:
            self.prefix(s, newest.hold[0], done, "hold.from")
        if newest.end and newest.end[1] and newest.rp:
            m = get(s.man, newest.rp)
            late = [
                tx
                for tx in m.pend
                if get(s.txs, tx)[2] != "C" and not (newest.hold and tx[1] > newest.hold[1])
            ]
            if late:
                raise Violation(f"5: the end is told as committed, {late} are not")
        for ref, m in s.man:
            if ref[0] == "s":
                self.covers(s, m, done, f"6: savepoint {ref[1]}")

    def whole(self, s, ref):
        m = get(s.man, ref)
        if m is None:
            raise Violation(f"3: {ref} is referenced and its manifest is gone")
        for f in self.files_of(ref, m):
            if f not in s.files:
                raise Violation(f"3: {ref} is referenced and its file {f} is gone")

    def prefix(self, s, ref, done, name):
        """What is committed, and what is in the recovery point, must be the same prefix."""
        m = get(s.man, ref) if ref else Manifest(0, 0, 0, (), 0)
        if m is None:
            raise Violation(f"3: {name} {ref} has no manifest")
        past = [r for r in done if r > m.pos]
        if past:
            raise Violation(
                f"1: {past} are committed, but {name} {ref} covers only 1..{m.pos}: they will be written again"
            )
        self.covers(s, m, done, f"2: {name} {ref}")

    def covers(self, s, m, done, name):
        have = set(done)
        for tx in m.pend:
            lo, hi, st = get(s.txs, tx)
            if st == "A":
                raise Violation(f"{name} counts on {tx}, which was aborted")
            have.update(self.content(tx, (lo, hi)))
        lost = [r for r in range(1, m.pos + 1) if r not in have]
        if lost:
            raise Violation(
                f"{name} covers 1..{m.pos}, but {lost} are neither committed nor pending"
            )

    def good(self, s):
        """The end that every fair run must be able to reach."""
        newest = s.log[-1][1]
        return bool(newest.end and newest.end[0] == "finish" and newest.end[1]) and sorted(
            self.committed(s)
        ) == list(range(1, self.R + 1))

    # ---- names of files ------------------------------------------------------------------------
    def private(self, num, att):
        return ("p", num) if self.hole("FILES_WITHOUT_ATTEMPT") else ("p", num, att)

    def files_of(self, ref, m):
        if (
            m.base == "stop"
        ):  # the files lie in the savepoint's folder, whichever manifest names them
            return [("sp", 2, m.att, m.num)]
        if ref[0] == "s":
            if self.hole("SAVEPOINT_FILES_BY_REQUEST"):
                return [("sp", ref[1], m.att)]
            return [("sp", ref[1], m.att, m.num)]
        own = [self.private(m.num, m.att)]
        if "files" in self.features:
            own += [("sh", m.num, m.att)] + ([("sh", *m.base)] if m.base else [])
        return own

    # ---- the log -------------------------------------------------------------------------------
    def create(self, s, seq, e):
        """The store's side of create-if-absent. Returns (created, state)."""
        if get(s.log, seq) is not None:
            return False, s
        if seq > s.top:
            prev = s.log[-1][1]
            if e.kind == "opened":
                back = prev.hold and e.by == ("rollback", prev.hold[0])
                if prev.end and not back and not (e.by and e.by[1] == prev.att):
                    raise Violation(
                        "5: an attempt is opened past an end without an order that names it"
                    )
                if e.rev != prev.rev and not e.by:
                    raise Violation("5: code of another revision takes over without an order")
                if prev.hold and e.rev != prev.rev and e.by[0] != "rollback":
                    raise Violation("5: another revision opens inside a hold")
            s = s._replace(top=seq)
        return True, s._replace(log=tuple(sorted((*s.log, (seq, e)))))

    def co(self, s, i, **kw):
        return s._replace(cos=(*s.cos[:i], s.cos[i]._replace(**kw), *s.cos[i + 1 :]))

    def off(self, s, i):
        c = s.cos[i]
        return s._replace(cos=(*s.cos[:i], OFF._replace(inc=c.inc, rev=c.rev), *s.cos[i + 1 :]))

    def intend(self, s, i, e):
        c = s.cos[i]
        return self.co(s, i, pc="put", intent=e._replace(nonce=(i, c.inc)))

    # ---- what a coordinator decides from the newest entry ----------------------------------------
    def open_from(self, s, i, view, by=None, rp=None, hold="same", rev=None, ret=None):
        """The opening of the next attempt; numbers are above the log's and everything listed."""
        c = s.cos[i]
        seen = (
            [view.nxt - 1]
            + [n for (k, n), _ in s.man if k == "c"]
            + [f[1] for f in s.files if f[0] in ("p", "sh")]
            + [m.num for _, m in s.man]
            + [f[3] for f in s.files if f[0] == "sp" and len(f) > 3]
        )
        return self.intend(
            s,
            i,
            Entry(
                "opened",
                None,
                view.att + 1,
                c.rev if rev is None else rev,
                view.ret if ret is None else ret,
                view.rp if rp is None else rp,
                max(seen) + 1,
                view.hold if hold == "same" else hold,
                None,
                by,
            ),
        )

    def read(self, s, i):
        """List, read the newest entry, decide (a pure function of it)."""
        seq, view = s.log[-1]
        s = self.co(s, i, seq=seq, view=view, intent=None)
        c = s.cos[i]
        if view.end:
            return self.co(s, i, pc="wait" if view.end[1] else "ending")
        if view.rev != c.rev and not self.hole("RECOVERS_ANY_REVISION"):
            return self.co(s, i, pc="wait")
        if (
            "orders" in self.features
            and any(o[0] in ("last", "rollback") for o in s.orders)
            and view.rev != c.rev
        ):
            return self.co(s, i, pc="wait")
        return self.open_from(s, i, view)

    def deploy(self, s, i):
        """Opening won: Prepare goes out; the attempt's sinks restore what the manifest names."""
        c = s.cos[i]
        e = c.view
        m = get(s.man, e.rp) if e.rp else Manifest(0, 0, 0, (), 0)
        if m is None:
            raise Violation(f"3: attempt {e.att} restores {e.rp}, whose manifest is gone")
        auth = m.num
        if e.hold and not self.hole("RECOVERY_COMMITS_IN_HOLD"):
            auth = e.hold[1]
        pend, named = m.pend, e.rp
        if e.hold and e.by and e.by[0] == "start" and self.hole("HELD_IS_FORGOTTEN_AFTER_A_CANCEL"):
            pend, named = (), None
        a = Attempt(
            e.att, m.pos, m.pos, pend, auth, named, False, m.num if e.rp and e.rp[0] == "c" else 0
        )
        s = s._replace(atts=put(s.atts, e.att, a))
        return self.co(s, i, pc="run", att=e.att, num=e.nxt, acked=None, sp=None, cnt=0)

    def won(self, s, i):
        c = s.cos[i]
        e, seq = c.intent, c.seq + 1
        old = c.view
        s = self.co(s, i, seq=seq, view=e, intent=None)
        if e.kind == "opened":
            s = self.deploy(s, i)
            gone = tuple(n for n in old.ret if n not in e.ret) if old else ()
            return self.co(s, i, delq=gone)
        a = get(s.atts, c.att)
        if e.kind == "completed":
            num = c.acked[1]
            auth = a.auth if e.hold else max(a.auth, num)
            s = s._replace(atts=put(s.atts, a.att, a._replace(auth=auth)))
            gone = tuple(n for n in old.ret if n not in e.ret)
            sp = c.sp
            if sp and sp[0] == "taken" and num > sp[2].num:
                sp = ("ready", *sp[1:])
            return self.co(
                s, i, pc="run", acked=None, num=num + 1, cnt=c.cnt + 1, delq=c.delq + gone, sp=sp
            )
        if e.kind == "released":
            s = s._replace(
                atts=put(s.atts, a.att, a._replace(auth=max(a.auth, max(e.ret, default=0))))
            )
            return self.co(s, i, pc="run")
        if e.kind == "ended" and not e.end[1]:
            if a and c.acked:
                s = s._replace(atts=put(s.atts, a.att, a._replace(auth=max(a.auth, c.acked[1]))))
            return self.co(s, i, pc="ending", acked=None, sp=None)
        return self.co(s, i, pc="wait", acked=None, sp=None, delq=())

    # ---- steps ---------------------------------------------------------------------------------
    def successors(self, s):
        out = []

        def add(label, thunk, failure=False):
            try:
                t = thunk()
                if t is not None:
                    self.check(t)
                    out.append((label, failure, t))
            except Violation as v:
                out.append((label, failure, v))

        for i, c in enumerate(s.cos):
            self.coordinator_steps(s, i, c, add)
        self.worker_steps(s, add)
        self.world_steps(s, add)
        return out

    def snapshot(self, s, i, advance, kind):
        """Trigger, barriers, pre-commit, all acknowledgements: nothing of it is visible outside before
        the manifest except the transactions and files, so it is one step."""
        c = s.cos[i]
        a = get(s.atts, c.att)
        pos = min(self.R, a.pos + advance * self.K)
        n = c.num
        txs, mine = s.txs, []
        for k in range(self.K):
            tx = (a.att, n, k) + (
                (s.life,) if s.life and not self.hole("NAMES_OF_A_FORMER_LIFE") else ()
            )
            if self.content(tx, (a.lo, pos)):
                if get(txs, tx) is None:  # a name that exists takes no new content
                    txs = put(txs, tx, (a.lo, pos, "P"))
                mine.append(tx)
        holds = tuple(sorted([t for t in a.holds if get(txs, t)[2] != "C"] + mine))
        base = 0
        if "files" in self.features and kind == "chk":
            base = (
                a.conf if self.hole("BASE_AS_LAST_HEARD") else (c.view.ret[-1] if c.view.ret else 0)
            )
            bm = get(s.man, ("c", base)) if base else None
            base = (base, bm.att) if bm else (base, a.att) if base else 0
        m = Manifest(a.att, n, pos, holds, "stop" if kind == "stop" else base)
        s = s._replace(
            txs=txs,
            atts=put(
                s.atts,
                a.att,
                a._replace(pos=pos, lo=pos, holds=holds, stopped=kind in ("stop", "finish")),
            ),
        )
        return s, m

    def coordinator_steps(self, s, i, c, add):
        L = f"C{i}"
        if c.pc == "off":
            return
        if self.has(s, "crash"):
            add(f"{L} dies", lambda: self.spend(self.off(s, i), "crash"), True)
        if c.pc == "idle" or (c.pc == "wait" and c.seq != s.log[-1][0]):
            add(f"{L} reads the newest entry", lambda: self.read(s, i))
        if c.pc in ("wait", "ending") or c.pc == "run":
            self.order_steps(s, i, c, add)
        if c.pc == "put":
            self.put_steps(s, i, c, add)
        if c.pc == "unsure":
            add(f"{L} reads number {c.seq + 1} back", lambda: self.read_back(s, i))
        if c.pc == "created":
            add(
                f"{L} lists the log",
                lambda: self.off(s, i) if s.log[-1][0] > c.seq + 1 else self.won(s, i),
            )
        if c.pc == "run":
            self.leader_steps(s, i, c, add)
        if c.pc == "ending":
            self.ending_steps(s, i, c, add)
        if c.pc in ("run", "ending") and c.delq:
            add(f"{L} deletes chk-{c.delq[0]}", lambda: self.delete(s, i))
        if "trim" in self.features and c.pc in ("run", "wait", "ending") and s.log[0][0] < c.seq:
            add(
                f"{L} trims the log below {c.seq}",
                lambda: s._replace(log=tuple((q, e) for q, e in s.log if q >= c.seq)),
            )

    def put_steps(self, s, i, c, add):
        L, seq, e = f"C{i}", c.seq + 1, c.intent
        what = e.kind + (
            f" attempt {e.att} from {e.rp}"
            if e.kind == "opened"
            else f" {e.rp}"
            if e.kind != "released"
            else ""
        )

        def told():
            ok, t = self.create(s, seq, e)
            if ok or (get(s.log, seq).nonce == e.nonce and get(s.log, seq) == e):
                t = self.co(t, i, pc="created")
                if self.hole("NO_LISTING_AFTER_CREATE"):
                    if seq < t.top:
                        raise Violation(
                            f"4: {L} believes that its entry {seq} won, the newest is {t.top}"
                        )
                    return self.won(t, i)
                return t
            if (
                self.hole("LOSER_PUTS_THE_SAME_AGAIN")
                and e.kind == "opened"
                and s.log[-1][1].end is None
            ):
                q, newest = s.log[-1]
                return self.co(t, i, seq=q, view=newest, intent=e._replace(att=newest.att + 1))
            return self.off(
                t, i
            )  # overtaken: stand down; whoever starts next decides from the newest entry

        add(f"{L} puts entry {seq}: {what}", told)
        if self.has(s, "unknown"):

            def untold():
                ok, t = self.create(s, seq, e)
                return self.spend(self.co(t, i, pc="unsure"), "unknown") if ok else None

            add(f"{L} puts entry {seq}: {what}; done, but the answer is lost", untold, True)
            add(
                f"{L} puts entry {seq}: {what}; the request hangs in the network",
                lambda: self.spend(
                    self.co(s, i, pc="unsure")._replace(fly=(*s.fly, (seq, e))), "unknown"
                ),
                True,
            )

    def read_back(self, s, i):
        c = s.cos[i]
        there = get(s.log, c.seq + 1)
        if there is None:
            if (
                self.hole("ABSENT_MEANS_FAILED")
                and c.intent.kind in ("completed", "ended")
                and c.acked
            ):
                return self.give_up(self.co(s, i, pc="run", intent=None), i)
            return self.co(s, i, pc="put")
        if there == c.intent:
            return self.co(s, i, pc="created")
        return self.off(s, i)

    def give_up(self, s, i):
        """A pending checkpoint or savepoint fails: its private files go, its transactions stay pending."""
        c = s.cos[i]
        _kind, num, _m, _ = c.acked
        a = get(s.atts, c.att)
        s = s._replace(
            atts=put(s.atts, a.att, a._replace(stopped=False)),
            files=s.files - {self.private(num, c.att), ("sp", 2, c.att, num)},
        )
        man = get(s.man, ("c", num))
        if man is not None and man.att == c.att:
            s = s._replace(man=drop(s.man, [("c", num)]))
        return self.co(s, i, acked=None, num=num + 1)

    def delete(self, s, i):
        c = s.cos[i]
        d = c.delq[0]
        m = get(s.man, ("c", d))
        s = self.co(s, i, delq=c.delq[1:])
        if m is None:
            return s
        kept = set()
        for n in c.view.ret + ((c.view.rp[1],) if c.view.rp and c.view.rp[0] == "c" else ()):
            km = get(s.man, ("c", n))
            if km:
                kept.update(self.files_of(("c", n), km))
        if c.acked and c.acked[0] == "chk":
            kept.update(self.files_of(("c", c.acked[1]), c.acked[2]) if c.acked[3] else ())
        return s._replace(
            man=drop(s.man, [("c", d)]),
            files=s.files
            - {
                f
                for f in self.files_of(("c", d), m)
                if f not in kept
                and (f[0] != "sp" or self.hole("RETENTION_DELETES_THE_SAVEPOINTS_FILES"))
            },
        )

    def leader_steps(self, s, i, c, add):
        L, view = f"C{i}", c.view
        a = get(s.atts, c.att)
        if c.acked is None:

            def take(kind, advance):
                t, m = self.snapshot(s, i, advance, kind)
                files = set(self.files_of(("c", m.num), m))
                if m.base and m.base != "stop":
                    files.discard(("sh", *m.base))
                return self.co(t._replace(files=t.files | files), i, acked=(kind, m.num, m, False))

            if a.pos < self.R:
                add(
                    f"{L} takes checkpoint {c.num} up to record {a.pos + self.K}",
                    lambda: take("chk", 1),
                )
            elif c.sp and c.sp[0] == "taken":
                add(f"{L} takes checkpoint {c.num} behind the savepoint", lambda: take("chk", 0))
            else:
                add(f"{L} takes the final checkpoint {c.num}", lambda: take("finish", 0))
            if self.has(s, "stop"):
                for d in (0, 1) if a.pos < self.R else (0,):
                    add(
                        f"{L} takes the stop-savepoint {c.num} up to record {min(self.R, a.pos + d * self.K)}",
                        lambda d=d: self.spend(take("stop", d), "stop"),
                    )
            if (
                self.has(s, "savepoint")
                and c.sp is None
                and (not view.hold or self.hole("SAVEPOINT_IN_HOLD"))
                and get(s.man, ("s", 1)) is None
            ):

                def savepoint():
                    t, m = self.snapshot(s, i, 1, "savepoint")
                    m = m._replace(base=0)
                    f = t.files
                    if self.hole("SAVEPOINT_FILES_BY_REQUEST"):
                        f = frozenset(x for x in f if x[0] != "sp")
                    f = f | set(self.files_of(("s", 1), m))
                    return self.spend(
                        self.co(t._replace(files=f), i, sp=("taken", 1, m), num=c.num + 1),
                        "savepoint",
                    )

                add(f"{L} takes savepoint 1 (number {c.num})", savepoint)
            if self.has(s, "fail"):
                add(
                    f"{L}: a worker of attempt {c.att} fails, the next attempt is to be opened",
                    lambda: self.spend(self.open_from(s, i, view), "fail"),
                    True,
                )
            if view.hold and c.cnt >= self.stable:
                add(
                    f"{L} wants to release the hold",
                    lambda: self.intend(s, i, view._replace(kind="released", hold=None, by=None)),
                )
            if self.has(s, "cancel"):
                add(
                    f"{L} is told to cancel",
                    lambda: self.spend(
                        self.intend(
                            s,
                            i,
                            view._replace(
                                kind="ended",
                                by=None,
                                end=("cancel", self.hole("CANCEL_WITHOUT_COMMITS")),
                            ),
                        ),
                        "cancel",
                    ),
                )
        else:
            _kind, num, _m, written = c.acked
            if not written:
                add(f"{L} writes the manifest of {num}", lambda: self.write_manifest(s, i))
                if self.has(s, "abort"):
                    add(
                        f"{L} gives {num} up (declined or timed out)",
                        lambda: self.spend(self.give_up(s, i), "abort"),
                        True,
                    )
        if c.sp and (c.sp[0] == "ready" or self.hole("SAVEPOINT_BEFORE_ITS_CHECKPOINT")):

            def meta():
                t = self.co(s, i, sp=None)
                if get(s.man, ("s", c.sp[1])) is None:
                    t = t._replace(man=put(t.man, ("s", c.sp[1]), c.sp[2]))
                return t

            add(f"{L} writes _metadata of savepoint {c.sp[1]}", meta)

    def write_manifest(self, s, i):
        c = s.cos[i]
        kind, num, m, _ = c.acked
        ref = ("c", num)
        if kind == "stop" and self.hole("STOP_METADATA_BEFORE_END"):
            there = get(s.man, ("s", 2))
            if there is None:  # 'a lost answer can be found again': else what stands there is taken
                s = s._replace(man=put(s.man, ("s", 2), m))
            s = self.co(s, i, acked=(kind, num, m, True))
            return self.intend(s, i, self.entry_for(s, i))
        there = get(s.man, ref)
        if there is not None:
            return self.give_up(s, i)  # another attempt's stands in the way: the next number
        s = self.co(s._replace(man=put(s.man, ref, m)), i, acked=(kind, num, m, True))
        return self.intend(s, i, self.entry_for(s, i))

    def entry_for(self, s, i):
        c = s.cos[i]
        kind, num, m, _ = c.acked
        ret = (*c.view.ret, num)
        keep = ret[-self.retained :]
        if c.view.hold and c.view.hold[0][0] == "c" and not self.hole("RETENTION_FORGETS_THE_HOLD"):
            h = c.view.hold[0][1]
            if h in ret and h not in keep:
                keep = (h, *keep)
        rp = ("c", num)
        if kind == "chk":
            return c.view._replace(kind="completed", ret=keep, rp=rp, nxt=num + 1, by=None)
        if kind == "stop" and self.hole("STOP_METADATA_BEFORE_END"):
            return c.view._replace(
                kind="ended", rp=("s", 2), nxt=num + 1, hold=None, end=("stop", False), by=None
            )
        if get(s.man, rp) is None or get(s.man, rp) != m:
            raise Violation(f"3: the manifest of {num} is not what its coordinator wrote")
        return c.view._replace(
            kind="ended", ret=keep, rp=rp, nxt=num + 1, hold=None, end=(kind, False), by=None
        )

    def ending_steps(self, s, i, c, add):
        """Commit-only: the sinks of what the end names, until an entry says that all is committed."""
        L = f"C{i}"
        rp = c.view.rp
        m = get(s.man, rp) if rp else Manifest(0, 0, 0, (), 0)
        if m is None:
            # the job went on under a newer entry and this one was dropped: it is overtaken
            add(f"{L} finds {rp} gone and stands down", lambda: self.off(s, i))
            return
        limit = c.view.hold[1] if c.view.hold else m.num
        left = [tx for tx in m.pend if get(s.txs, tx)[2] != "C" and tx[1] <= limit]
        for tx in left:
            add(
                f"{L} commits {tx} (commit-only)",
                lambda tx=tx: self.commit(s, tx, "a commit-only worker"),
            )
        sp = ("s", 100 + m.num)
        copied = (
            c.view.end[0] != "stop"
            or self.hole("STOP_METADATA_BEFORE_END")
            or get(s.man, sp) is not None
        )
        if not copied:
            add(
                f"{L} copies the manifest to the savepoint's _metadata",
                lambda: s._replace(man=put(s.man, sp, m)),
            )
        if not left and copied:
            add(
                f"{L} wants to record that all is committed",
                lambda: self.intend(s, i, c.view._replace(end=(c.view.end[0], True), by=None)),
            )

    def order_steps(self, s, i, c, add):
        L, view = f"C{i}", c.view
        for o in s.orders:
            kind, after = o
            if kind in ("start", "upgrade") and c.pc in ("wait", "ending") and view.end:
                fits = after == view.att or self.hole("START_WITHOUT_AFTER")
                want = 2 if kind == "upgrade" else view.rev
                if fits and c.rev == want:
                    hold = view.hold
                    if kind == "upgrade" and view.rp:
                        hold = (view.rp, get(s.man, view.rp).num) if get(s.man, view.rp) else None
                    add(
                        f"{L} obeys the order to {kind}",
                        lambda hold=hold, o=o: self.open_from(s, i, view, by=o, hold=hold),
                    )
            if (
                kind == "last"
                and c.pc == "wait"
                and not view.end
                and c.rev == 2
                and after == view.att
                and view.rp
            ):
                m = get(s.man, view.rp)
                if m:
                    add(
                        f"{L} obeys the order to upgrade from the newest checkpoint",
                        lambda o=o, m=m: self.open_from(s, i, view, by=o, hold=(view.rp, m.num)),
                    )
            if (
                kind == "rollback"
                and c.pc in ("wait", "run")
                and c.rev == 1
                and view.rev == 2
                and (not view.end or view.end[1])
            ) and (view.hold or self.hole("ROLLBACK_AFTER_RELEASE")):
                src = view.hold[0] if view.hold else after
                n = src[1] if src[0] == "c" else get(s.man, src).num if get(s.man, src) else 0
                add(
                    f"{L} obeys the order to roll back to {src}",
                    lambda o=o, src=src, n=n: self.open_from(
                        s,
                        i,
                        view,
                        by=o,
                        rp=src,
                        hold=None,
                        rev=1,
                        ret=tuple(x for x in view.ret if x <= n),
                    ),
                )

    def worker_steps(self, s, add):
        for att, a in s.atts:
            for tx in a.holds:
                if tx[1] <= a.auth and get(s.txs, tx)[2] != "C":
                    add(
                        f"a sink of attempt {att} commits {tx}",
                        lambda tx=tx, att=att: self.commit(s, tx, f"attempt {att}"),
                    )
            if "files" in self.features and a.conf < a.auth:
                add(
                    f"workers of attempt {att} hear that {a.auth} is complete",
                    lambda a=a: s._replace(atts=put(s.atts, a.att, a._replace(conf=a.auth))),
                )
            named = (get(s.man, a.rp).pend if a.rp and get(s.man, a.rp) else ()) if a.rp else ()
            for tx, (lo, hi, st) in s.txs:
                if st == "P" and tx[0] < att and tx not in named and tx not in a.holds:
                    add(
                        f"a sink of attempt {att}, restoring, aborts {tx}",
                        lambda tx=tx, lo=lo, hi=hi: s._replace(txs=put(s.txs, tx, (lo, hi, "A"))),
                    )

    def world_steps(self, s, add):
        seq, newest = s.log[-1]
        for f in s.fly:
            rest = list(s.fly)
            rest.remove(f)
            add(
                f"the hanging put of entry {f[0]} ({f[1].kind}) arrives",
                lambda f=f, rest=rest: self.create(s, *f)[1]._replace(fly=tuple(rest)),
            )
        alive = [c for c in s.cos if c.pc != "off"]
        over = newest.end and newest.end[1] and newest.end[0] == "finish"
        revs = (
            {newest.rev}
            | ({2} if any(o[0] in ("upgrade", "last") for o in s.orders) else set())
            | ({1} if any(o[0] == "rollback" for o in s.orders) else set())
        )
        if "zombie" in self.features:
            revs |= {1}
        for i, c in enumerate(s.cos):
            if c.pc == "off" and not over:
                for rev in sorted(revs):

                    def start(i=i, c=c, rev=rev, pay=bool(alive)):
                        t = self.spend(s, "twin") if pay else s
                        return self.co(t, i, pc="idle", inc=min(c.inc + 1, 3), rev=rev)

                    if not alive and i == min(j for j, x in enumerate(s.cos) if x.pc == "off"):
                        add(f"C{i} is started (revision {rev})", start)
                    elif alive and self.has(s, "twin"):
                        add(f"C{i} is started beside the other (revision {rev})", start, True)
            if (
                c.pc == "wait"
                and (c.rev != newest.rev or c.seq == seq)
                and len(revs) > 1
                and not over
            ):
                add(f"C{i}, waiting, is replaced", lambda i=i: self.off(s, i))
        if newest.end and newest.end[0] != "finish":
            if self.has(s, "start") or not any(o[1] == newest.att for o in s.orders):
                # the last order is free, so that a fair run can finish
                tag = ("start", newest.att)
                if tag not in s.orders:
                    add(
                        "a start is ordered",
                        lambda: (self.spend(s, "start") if self.has(s, "start") else s)._replace(
                            orders=tuple(sorted((*s.orders, tag), key=repr))
                        ),
                    )
            if (
                self.has(s, "upgrade")
                and newest.rev == 1
                and not any(o == ("start", newest.att) for o in s.orders)
            ):
                add(
                    "an upgrade is ordered",
                    lambda: self.spend(s, "upgrade")._replace(
                        orders=tuple(sorted((*s.orders, ("upgrade", newest.att)), key=repr))
                    ),
                )
        if (
            "last" in self.features
            and self.has(s, "upgrade")
            and newest.rev == 1
            and not newest.end
            and newest.rp
        ):
            add(
                "an upgrade from the newest checkpoint is ordered",
                lambda: self.spend(s, "upgrade")._replace(
                    orders=tuple(sorted((*s.orders, ("last", newest.att)), key=repr))
                ),
            )
        if self.has(s, "rollback") and newest.hold:
            add(
                "a rollback is ordered",
                lambda: self.spend(s, "rollback")._replace(
                    orders=tuple(sorted((*s.orders, ("rollback", newest.hold[0])), key=repr))
                ),
            )
        if (
            self.has(s, "wipe")
            and newest.end
            and newest.end[1]
            and all(c.pc in ("off", "wait") for c in s.cos)
        ):
            for ref, m in s.man:
                if ref[0] == "s" and m == get(s.man, newest.rp):

                    def wipe(ref=ref, m=m):
                        e = Entry(
                            "opened",
                            (0, 0),
                            1,
                            newest.rev,
                            (),
                            ref,
                            1 if self.hole("NUMBERS_BELOW_THE_RESTORED") else m.num + 1,
                            None,
                            None,
                            ("start", 0),
                        )
                        t = s._replace(
                            log=((1, e),),
                            top=1,
                            man=((ref, m),),
                            files=frozenset(f for f in s.files if f[0] == "sp"),
                            atts=(),
                            orders=(),
                            life=s.life + 1,
                            fly=(),
                        )
                        t = t._replace(cos=tuple(OFF._replace(inc=c.inc, rev=c.rev) for c in s.cos))
                        t = self.co(t, 0, seq=1, view=e, rev=e.rev)
                        return self.spend(self.deploy(t, 0), "wipe")

                    add(
                        f"checkpoints and log are deleted; the job is made again from {ref}",
                        wipe,
                        True,
                    )
        if "fork" in self.features:
            for ref, m in s.man:
                if ref[0] == "s" or (ref[0] == "c" and self.hole("FORK_FROM_AN_ORPHAN")):
                    if ref[0] == "c" and newest.end is None and ref[1] in newest.ret:
                        continue
                    for tx in m.pend:
                        if get(s.txs, tx)[2] != "C":
                            add(
                                f"another job, started from {ref}, commits {tx}",
                                lambda tx=tx: self.commit(s, tx, "another job"),
                                True,
                            )
