"""A scenario as a PRISM model, for model checkers that know nothing of this package.

This is the rules written a second time, from the tables of docs/model.md, and its use is that it
may disagree: Storm and the exact solver get their answers from two texts. It reads the
scenario and shares nothing with the packed tables or the compiled rules.

Vocabulary
----------
place     where a thread stands: done, idle, touch, enter, a step of its program, exit
queue     the position of a thread among the sleepers it is one of; 0 is awake, 1 is the next heir
bios      how many bios there are that nothing can tell apart: they are at the same device or queue,
          come from the same kind of thread of the same mount (or from the same thread, where a
          program waits for its own bios or pages return to their owner), and have the same pages
          on each level of their stack
effect    what a firing changes: for each variable the expression of its new value
arrival   where a thread that moves on comes to stand, with the probability: a random alloc draws

Reference: PRISM manual, "The PRISM Language" (Kwiatkowska, Norman, Parker 2011, CAV, 585).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reservelab.model.errors import BadInput
from reservelab.model.filesystems import Filesystem, Step
from reservelab.model.scenario import RULES_VERSION, Scenario

_Effect = dict[str, str]
_Arrival = list[tuple[float, _Effect]]
_Pages = tuple[tuple[int, int], ...]
_Chain = tuple[tuple[int, ...], _Pages, tuple[int | None, ...]]
_Above = tuple[str, tuple[int, ...], _Pages]
_MOST_KINDS = 10_000  # of bios: each has its command, and checkers look at all in every state
_STANDING = ("done", "idle", "touch", "enter")  # the first places; a section comes after them


def prism(scenario: Scenario) -> str:
    """Write a scenario as guarded commands: a continuous-time Markov chain in PRISM's language.

    A module for each thread, each device and the OOM killer. A deadlock is what model checkers
    label "deadlock" by themselves, a state without a command; the end of an episode is labelled
    "completed". Reward structures: "time", "idle" (pages), "inside" (threads).

    Parameters
    ----------
    scenario : Scenario
        What to write; any scheme, waiting rule and stack.

    Returns
    -------
    str
        The model, ASCII; PRISM and Storm read it.

    Raises
    ------
    BadInput
        If bios can differ in their pages in so many ways that no checker would get far.
    """
    return _Model(scenario).text()


@dataclass(frozen=True)
class _Thread:
    """A flusher, a dirtier or a loop worker, by its number."""

    number: int
    kind: str
    mount: int  # whose program it runs
    serves: int | None = None  # the stacked mount whose queue a loop worker empties


@dataclass(frozen=True)
class _Bios:
    """Bios that nothing can tell apart, with those they carry; the upper ones come first."""

    origin: str
    cleans: bool  # a dirtier sent the top one: its page comes back too
    mounts: tuple[int, ...]
    pages: _Pages  # of each level: carried p, drawn d
    owners: tuple[int | None, ...]  # the thread of each level, None where nobody asks
    most: int  # there can be no more of them at once

    @property
    def name(self) -> str:
        """The variable that counts them."""
        pages = [f"{p}d{d}" if d else f"{p}" for p, d in self.pages]
        return "_".join([f"bios{self.mounts[-1]}", self.origin, *pages])


class _Way(NamedTuple):
    """One way in which a release goes on: a further guard, the whole effect, heirs' arrivals."""

    guard: str
    effect: _Effect
    arrivals: tuple[_Arrival, ...]


def _add(effect: _Effect, variable: str, amount: int | str) -> None:
    """Let an effect raise a variable, once more if it does already."""
    if amount:
        more = f"{amount:+d}" if isinstance(amount, int) else amount
        effect[variable] = effect.get(variable, variable) + more


def _both(guards: Iterable[str]) -> str:
    return " & ".join(guard for guard in guards if guard)


def _any(guards: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(guards)) or "false"


def _sum(terms: Iterable[str]) -> str:
    return " + ".join(terms) or "0"


class _Model:
    """The model of one scenario, written from top to bottom."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.scheme = scenario.scheme
        self.grants = scenario.scheme.grants
        self.reserve = scenario.reserve or 0
        self.asleep = scenario.waiting == "asleep"
        self.threads = _threads(scenario)
        machine = scenario.machine
        # Pages are conserved but for the dirtiers' and the killer's, and no count is above the sum.
        self.total = machine.pages + machine.dirty + machine.oom_kills * machine.pages_per_kill
        self.semaphore = "global_pool" in self.grants
        self.draws = bool({"claim", "global_pool"} & {*self.grants}) or self.scheme.returns == "own"
        self.keeps_drawn = self.scheme.exit in ("refill", "refill_flag_set")
        self.tells_drawn = self.scheme.returns in ("own", "pool") and not self.keeps_drawn
        programs = [self.program(thread) for thread in self.threads]
        waits = any(step.verb == "wait" for steps in programs for step in steps)
        self.tells_owners = waits or self.scheme.returns == "own"
        self.bios = self._all_bios()
        self.lines: list[str] = []
        self.guards: list[str] = []
        self.enabled: dict[str, str] = {}  # for each module, when it can do something
        self.allocates = {
            thread.number: any(step.worst for step in self.program(thread))
            for thread in self.threads
        }

    # --- what there is ---------------------------------------------------------------------------

    def filesystem(self, thread: _Thread) -> Filesystem:
        return self.scenario.mounts[thread.mount].filesystem

    def program(self, thread: _Thread) -> tuple[Step, ...]:
        return self.filesystem(thread).program

    def place(self, thread: _Thread, step: int) -> str:
        """The name of the place of a step; after the last one comes the exit."""
        program = self.program(thread)
        if step == len(program):
            return f"m{thread.mount}_exit"
        return f"m{thread.mount}_{step}_{program[step].verb}"

    def lock(self, thread: _Thread, step: Step) -> str:
        return f"lock{thread.mount}_{self.filesystem(thread).locks.index(step.lock)}"

    def locks(self, mount: int) -> list[str]:
        names = self.scenario.mounts[mount].filesystem.locks
        return [f"lock{mount}_{k}" for k in range(len(names))]

    def queues(self) -> list[str]:
        """What threads can queue for: the semaphore, and each lock somebody can take."""
        used = sorted({thread.mount for thread in self.threads})
        return ["semaphore"] * self.semaphore + [lock for m in used for lock in self.locks(m)]

    def sleeps_at(self, thread: _Thread, queue: str) -> list[int]:
        """The steps of its program at which a thread can sleep in a queue; -1 is enter."""
        if queue == "semaphore":
            steps = [k for k, step in enumerate(self.program(thread)) if step.worst]
            return [-1] * (self.scheme.entry == "semaphore") + steps
        return [
            k
            for k, step in enumerate(self.program(thread))
            if step.verb == "lock" and self.lock(thread, step) == queue
        ]

    def at(self, thread: _Thread, step: int) -> str:
        """The guard that a thread stands at a step, awake; -1 is enter."""
        i = thread.number
        here = f"place{i}=enter" if step < 0 else f"place{i}={self.place(thread, step)}"
        can_sleep = self.asleep and any(step in self.sleeps_at(thread, q) for q in self.queues())
        return _both([here, f"queue{i}=0" if can_sleep else ""])

    def _sizes(self, thread: _Thread) -> list[tuple[int, int]]:
        """The p and d that a bio of a thread can have."""
        sums = {0}
        for step in self.program(thread):
            if step.verb == "alloc":
                sums = {total + number for total in sums for number, _ in step.demand}
        most_drawn = self._most_drawn(thread) if self.tells_drawn else 0
        return [(p, d) for p in sorted(sums) for d in range(min(p, most_drawn) + 1)]

    def _all_bios(self) -> dict[int, list[_Bios]]:
        """For each mount the kinds of bios that can be in flight on its device or in its queue."""
        found: dict[int, dict[str, _Bios]] = {m: {} for m in range(len(self.scenario.mounts))}
        machine, quota = self.scenario.machine, self.scenario.quota
        cleaned = machine.dirty + quota * sum(mount.dirtiers for mount in self.scenario.mounts)
        # A worker's bio carries one from above, so mounts are visited from the top of each stack.
        for thread in self.threads:
            if thread.kind == "worker":
                continue
            origin, owner = self._origin(thread), thread.number if self.tells_owners else None
            sent = cleaned if thread.kind == "dirtier" else quota
            if thread.kind == "flusher" and not self.tells_owners:
                sent *= self.scenario.mounts[thread.mount].flushers
            chains: list[_Chain] = [
                ((thread.mount,), (size,), (owner,)) for size in self._sizes(thread)
            ]
            while chains:
                following: list[_Chain] = []
                for mounts, pages, owners in chains:
                    carried = sum(p for p, _ in pages)
                    most = min(sent, self.total // carried) if carried else sent
                    cleans = thread.kind == "dirtier"
                    bios = _Bios(origin, cleans, mounts, pages, owners, most)
                    if most == 0:
                        continue
                    found[mounts[-1]][bios.name] = bios
                    if sum(map(len, found.values())) > _MOST_KINDS:
                        raise BadInput(
                            "scenario", f"more than {_MOST_KINDS} kinds of bios to tell apart",
                            "export filesystems whose allocs want fewer different numbers",
                        )  # fmt: skip
                    for worker in self.threads:
                        if worker.serves == mounts[-1]:
                            following += [
                                ((*mounts, worker.mount), (*pages, size), (*owners, worker.number))
                                for size in self._sizes(worker)
                            ]
                chains = following
        return {mount: list(kinds.values()) for mount, kinds in found.items()}

    # --- the text --------------------------------------------------------------------------------

    def text(self) -> str:
        modules: list[str] = []
        for thread in self.threads:
            doing = f"a {thread.kind} of mount {thread.mount}"
            if thread.serves is not None:
                doing = f"the loop worker of mount {thread.serves}, on mount {thread.mount}"
            self._thread(thread)
            modules += self._module(f"thread{thread.number}", doing)
        for mount, bios in self.bios.items():
            if bios and self.scenario.mounts[mount].on is None:
                self._device(mount)
                modules += self._module(f"device{mount}", f"the device of mount {mount}")
        if self.scenario.machine.oom_kills:
            busy = [f"busy_{name}" for name in self.enabled]
            modules += ["", *(f"formula busy_{n} = {g};" for n, g in self.enabled.items())]
            effect = {"kills": "kills-1"}
            _add(effect, "free", self.scenario.machine.pages_per_kill)
            self._fire(_both(["kills>0", "!ended", *(f"!{name}" for name in busy)]), effect)
            modules += self._module("oom_killer", "acts when nothing else can happen")
        head = [*self._places(), *self._state(), *self._formulas()]
        return "\n".join([*head, *modules, *self._ends(), ""])

    def _module(self, name: str, what: str) -> list[str]:
        lines = ["", f"module {name}  // {what}", *self.lines, "endmodule"]
        self.enabled[name] = _any(f"({guard})" for guard in self.guards)
        self.lines, self.guards = [], []
        return lines

    def _fire(
        self, guard: str, effect: _Effect, *arrivals: _Arrival, way: str = "", rate: str = "1"
    ) -> None:
        """Write one command; the arrivals of several threads are drawn independently.

        `way` is a further guard where several commands share what enables them.
        """
        outcomes: _Arrival = [(1.0, effect)]
        for arrival in arrivals:
            outcomes = [(p * q, before | after) for p, before in outcomes for q, after in arrival]
        updates = []
        for probability, changes in outcomes:
            weight = rate if probability == 1.0 else repr(probability)
            update = "&".join(f"({variable}'={value})" for variable, value in changes.items())
            updates.append(f"{weight} : {update}")
        self.guards.append(guard)
        self.lines.append(f"  [] {_both([guard, way])} -> {' + '.join(updates)};")

    def _places(self) -> list[str]:
        """What it is, and the places of the threads of each mount, by name."""
        scenario = self.scenario
        lines = [
            f"// reservelab, rules version {RULES_VERSION}, scenario {scenario.digest}",
            f"// scheme: {self.scheme.variant}, reserve {scenario.reserve}; {scenario.waiting}",
            '// the probability of a deadlock: P=? [ F "deadlock" & !"completed" ]',
            '// the expected time to the end: R{"time"}=? [ F "deadlock" ]',
            "ctmc",
            "",
            "const int nobody = -1;",
            "// Places of a thread. Those above enter are inside a section.",
        ]
        lines += [f"const int {name} = {k};" for k, name in enumerate(_STANDING)]
        shown = {thread.mount: thread for thread in reversed(self.threads)}
        for m, mount in enumerate(scenario.mounts):
            device = mount.device
            below = f"mount {mount.on}"
            if device is not None:
                below = f"a device of rate {device.rate!r}, depth {device.depth}"
                below += f", completion_pages {device.completion_pages}"
            lines += ["", f"// mount {m}: {mount.filesystem.name} on {below}"]
            if m in shown:
                for k, step in enumerate(mount.filesystem.program):
                    place = self.place(shown[m], k)
                    lines.append(f"const int {place} = {k + len(_STANDING)};  // {step}")
                k = len(mount.filesystem.program) + len(_STANDING)
                lines.append(f"const int m{m}_exit = {k};")
        return lines

    def _state(self) -> list[str]:
        """All variables, and how they start."""
        scenario, machine = self.scenario, self.scenario.machine
        lines = ["", "// memory", self._variable("free", self.total, self._free_at_start())]
        if any(mount.dirtiers for mount in scenario.mounts):
            lines.append(self._variable("dirty", self.total, machine.dirty))
        if machine.oom_kills:
            lines.append(self._variable("kills", machine.oom_kills, machine.oom_kills))
        if self.scheme.start == "pool":
            lines.append(self._variable("pool", self.reserve, self.reserve))
        lines += [self._variable(name, self.reserve, self.reserve) for name in self._mount_pools()]
        if self.queues():
            lines += ["", "// owners, by number of the thread"]
            most = len(self.threads) - 1
            lines += [f"global {queue} : [-1..{most}] init nobody;" for queue in self.queues()]
        for thread in self.threads:
            lines += ["", f"// thread {thread.number}", *self._variables(thread)]
        for m, bios in self.bios.items():
            if bios:
                where = "in the queue" if scenario.mounts[m].on is not None else "on the device"
                lines += ["", f"// bios {where} of mount {m}, by origin and pages (d: drawn)"]
                lines += [self._variable(kind.name, kind.most, 0) for kind in bios]
        return lines

    def _variable(self, name: str, most: int, first: int) -> str:
        return f"global {name} : [0..{max(1, most)}] init {first};"

    def _free_at_start(self) -> int:
        free = self.scenario.machine.pages
        match self.scheme.start:
            case "pool":
                free -= self.reserve
            case "mount_pools":
                free -= self.reserve * len(self.scenario.mounts)
            case "own":
                free -= sum(self.filesystem(thread).nr_pages for thread in self.threads)
        return free

    def _mount_pools(self) -> list[str]:
        if self.scheme.start != "mount_pools":
            return []
        return [f"pool{m}" for m in range(len(self.scenario.mounts))]

    def _variables(self, thread: _Thread) -> list[str]:
        """A thread's own: its place, and what it can have under this scheme."""
        i, filesystem = thread.number, self.filesystem(thread)
        worker = thread.kind == "worker"
        first = {"flusher": "enter", "dirtier": "touch", "worker": "idle"}[thread.kind]
        last = len(_STANDING) + len(filesystem.program)
        need = filesystem.nr_pages
        standing = need if self.scheme.start == "own" else 0
        lines = [f"global place{i} : [0..{last}] init {first};"]
        if not worker:
            lines.append(self._variable(f"quota{i}", self.scenario.quota, self.scenario.quota))
        if self.allocates[i]:
            worst = max(step.worst for step in filesystem.program)
            lines.append(self._variable(f"want{i}", worst, 0))
            lines.append(self._variable(f"held{i}", min(filesystem.worst_demand, self.total), 0))
            if self.draws:
                lines.append(self._variable(f"drawn{i}", self._most_drawn(thread), 0))
        if "own" in self.grants:
            lines.append(self._variable(f"own{i}", need, standing))
        if "claim" in self.grants:
            lines.append(self._variable(f"claim{i}", need, 0))
        if self.asleep and any(self.sleeps_at(thread, queue) for queue in self.queues()):
            lines.append(self._variable(f"queue{i}", len(self.threads) - 1, 0))
        if self.scheme.exit == "refill_flag_set":
            lines.append(f"global stuck{i} : bool init false;  // asleep for ever")
        if worker:
            kinds = self.bios[thread.serves] if thread.serves is not None else []
            known = ", ".join(f"{k} {kind.name}" for k, kind in enumerate(kinds, 1))
            line = self._variable(f"carries{i}", len(kinds), 0)
            lines.append(f"{line}  // 0 nothing{', ' * bool(known)}{known}")
        return lines

    def _most_drawn(self, thread: _Thread) -> int:
        filesystem = self.filesystem(thread)
        given = self.reserve if self.semaphore else filesystem.nr_pages
        return min(filesystem.worst_demand, given)

    def _formulas(self) -> list[str]:
        lines = [""]
        inside = _sum(f"(place{t.number}>enter?1:0)" for t in self.threads)
        lines.append(f"formula inside = {inside};")
        for m, bios in self.bios.items():
            if bios:
                lines.append(f"formula bios{m} = {_sum(kind.name for kind in bios)};")
        ends = [
            f"place{thread.number}={'idle' if thread.kind == 'worker' else 'done'}"
            for thread in self.threads
        ]
        ends += [f"bios{m}=0" for m, bios in self.bios.items() if bios]
        lines.append(f"formula ended = {_both(ends)};")
        for queue in self.queues() if self.asleep else []:
            sleepers = [thread for thread in self.threads if self.sleeps_at(thread, queue)]
            for thread in sleepers:
                i = thread.number
                places = _any(
                    f"place{i}={'enter' if step < 0 else self.place(thread, step)}"
                    for step in self.sleeps_at(thread, queue)
                )
                lines.append(f"formula sleeps{i}_{queue} = queue{i}>0 & ({places});")
            count = _sum(f"(sleeps{t.number}_{queue}?1:0)" for t in sleepers)
            lines.append(f"formula sleepers_{queue} = {count};")
        for thread in self.threads:
            if any(step.verb == "wait" for step in self.program(thread)):
                out = _sum(self._outstanding(thread))
                lines.append(f"formula outstanding{thread.number} = {out};")
        return lines

    def _outstanding(self, thread: _Thread) -> list[str]:
        """Terms that count a thread's bios: in flight, queued, and in a loop worker's hands."""
        terms = []
        for m, bios in self.bios.items():
            carriers = [worker.number for worker in self.threads if worker.serves == m]
            for k, kind in enumerate(bios, 1):
                if thread.number in kind.owners:
                    terms.append(kind.name)
                    terms += [f"(carries{worker}={k}?1:0)" for worker in carriers]
        return terms

    def _ends(self) -> list[str]:
        idle = [f"min(free, {self.reserve})"] if self.scheme.start == "mark" else []
        idle += ["pool"] if self.scheme.start == "pool" else self._mount_pools()
        for name in ("own", "claim"):
            if name in self.grants:
                idle += [f"{name}{thread.number}" for thread in self.threads]
        lines = ["", 'label "completed" = ended;']
        for name, value in (("time", "1"), ("idle", _sum(idle)), ("inside", "inside")):
            lines += ["", f'rewards "{name}"', f"  true : {value};", "endrewards"]
        return lines

    # --- threads ---------------------------------------------------------------------------------

    def _thread(self, thread: _Thread) -> None:
        """Write every command of a thread."""
        if thread.kind == "dirtier":
            self._touch(thread)
        if thread.kind == "worker":
            self._pick(thread)
        self._enter(thread)
        for k, step in enumerate(self.program(thread)):
            here, onward = self.at(thread, k), self._arrive(thread, k + 1)
            match step.verb:
                case "alloc":
                    if step.worst:
                        self._alloc(thread, k)
                case "lock":
                    lock = self.lock(thread, step)
                    free = _both([here, f"{lock}=nobody"])
                    self._fire(free, {lock: str(thread.number)}, onward)
                    self._sleep(thread, _both([here, f"{lock}!=nobody"]), lock)
                case "unlock":
                    for way in self._release(thread, [self.lock(thread, step)], {}):
                        self._fire(here, way.effect, onward, *way.arrivals, way=way.guard)
                case "submit":
                    self._submit(thread, here, onward)
                case _:
                    self._fire(_both([here, f"outstanding{thread.number}=0"]), {}, onward)
        self._exit(thread)

    def _arrive(self, thread: _Thread, step: int) -> _Arrival:
        """Where a thread that has come to a step stands: an alloc of no pages is skipped."""
        i, program = thread.number, self.program(thread)
        if step == len(program) or program[step].verb != "alloc":
            return [(1.0, {f"place{i}": self.place(thread, step)})]
        arrival: dict[tuple[str, str], float] = {}
        for number, probability in program[step].demand:
            here = {f"place{i}": self.place(thread, step), f"want{i}": str(number)}
            for p, effect in [(1.0, here)] if number else self._arrive(thread, step + 1):
                key = (effect[f"place{i}"], effect.get(f"want{i}", ""))
                arrival[key] = arrival.get(key, 0.0) + probability * p
        return [
            (p, {f"place{i}": place} | ({f"want{i}": want} if want else {}))
            for (place, want), p in arrival.items()
        ]

    def _sleep(self, thread: _Thread, guard: str, queue: str) -> None:
        """Let a thread fall asleep at the end of a queue, where the waiting rule knows sleep."""
        if self.asleep:
            self._fire(guard, {f"queue{thread.number}": f"sleepers_{queue}+1"})

    def _touch(self, thread: _Thread) -> None:
        i = thread.number
        mark = self.reserve if self.scheme.start == "mark" else 0
        place = f"(quota{i}>1?touch:done)"
        take = {"free": "free-1", "dirty": "dirty+1", f"quota{i}": f"quota{i}-1"}
        self._fire(f"place{i}=touch & free>{mark}", take | {f"place{i}": place})
        reclaim = {"dirty": "dirty-1", f"place{i}": "enter"}
        self._fire(f"place{i}=touch & free<={mark} & dirty>0", reclaim)

    def _pick(self, thread: _Thread) -> None:
        """Let an idle loop worker take a random bio of the queue it serves."""
        i = thread.number
        assert thread.serves is not None  # every worker serves a mount
        kinds = self.bios[thread.serves]
        for k, kind in enumerate(kinds, 1):
            effect = {kind.name: f"{kind.name}-1", f"carries{i}": str(k), f"place{i}": "enter"}
            rate = "1" if len(kinds) == 1 else f"{kind.name}/bios{thread.serves}"
            self._fire(f"place{i}=idle & {kind.name}>0", effect, rate=rate)

    def _enter(self, thread: _Thread) -> None:
        i, need = thread.number, self.filesystem(thread).nr_pages
        limit = self.scheme.max_sections
        here = _both([self.at(thread, -1), f"inside<{limit}" if limit else ""])
        begin = self._arrive(thread, 0)
        match self.scheme.entry:
            case "nothing":
                self._fire(here, {}, begin)
            case "half_mark":
                self._fire(_both([here, f"2*free>{self.reserve}"]), {}, begin)
            case "own_by_page" if need > 0:
                page = {"free": "free-1", f"own{i}": f"own{i}+1"}
                if need > 1:
                    self._fire(_both([here, "free>0", f"own{i}<{need - 1}"]), page)
                self._fire(_both([here, "free>0", f"own{i}={need - 1}"]), page, begin)
            case "own_by_page":
                self._fire(here, {}, begin)
            case "own_at_once":
                effect: _Effect = {}
                _add(effect, "free", -need)
                _add(effect, f"own{i}", need)
                self._fire(_both([here, f"free>={need}"]), effect, begin)
            case "own_full":
                self._fire(_both([here, f"own{i}={need}"]), {}, begin)
            case "tickets":
                effect = {f"claim{i}": str(need)}
                _add(effect, "pool", -need)
                self._fire(_both([here, f"pool>={need}"]), effect, begin)
            case "semaphore":
                self._fire(_both([here, "semaphore=nobody"]), {"semaphore": str(i)}, begin)
                self._sleep(thread, _both([here, "semaphore!=nobody"]), "semaphore")

    def _alloc(self, thread: _Thread, step: int) -> None:
        """Take a page from the first source that grants one; else sleep, back out, or wait."""
        i, here = thread.number, self.at(thread, step)
        refused: list[str] = []
        elsewhere: list[str] = []  # refused by all but the global pool
        for grant in self.grants:
            match grant:
                case "free" | "memalloc":
                    granted, not_granted, effect = "free>0", "free=0", {"free": "free-1"}
                case "own" | "claim":
                    mine = f"{grant}{i}"
                    granted, not_granted = f"{mine}>0", f"{mine}=0"
                    effect = {mine: f"{mine}-1"}
                    if grant == "claim" or self.scheme.returns == "own":
                        _add(effect, f"drawn{i}", 1)
                case "mount_pool":
                    mine = f"pool{thread.mount}"
                    granted, not_granted, effect = f"{mine}>0", f"{mine}=0", {mine: f"{mine}-1"}
                case "global_pool":
                    granted = f"pool>0 & (semaphore=nobody | semaphore={i})"
                    not_granted = f"!({granted})"
                    effect = {"pool": "pool-1", f"drawn{i}": f"drawn{i}+1", "semaphore": str(i)}
            self._take(thread, step, _both([here, *refused, granted]), effect)
            refused.append(not_granted)
            elsewhere += [not_granted] if grant != "global_pool" else []
        if self.semaphore and self.asleep:
            nobody = _both([here, *elsewhere, "pool=0", "semaphore=nobody"])
            self._fire(nobody, {"semaphore": str(i)})
            another = _both([here, *elsewhere, "semaphore!=nobody", f"semaphore!={i}"])
            self._sleep(thread, another, "semaphore")
        backs_out = self.filesystem(thread).backs_out and thread.kind != "worker"
        if "memalloc" in self.grants and backs_out:
            self._back_out(thread, step, _both([here, *refused]))

    def _take(self, thread: _Thread, step: int, guard: str, effect: _Effect) -> None:
        """Write the commands that hold one more page: the last one leads on."""
        i = thread.number
        effect = effect | {f"held{i}": f"held{i}+1"}
        several = self.program(thread)[step].worst > 1
        if several:
            self._fire(guard, effect | {f"want{i}": f"want{i}-1"}, way=f"want{i}>1")
        last, onward = effect | {f"want{i}": "0"}, self._arrive(thread, step + 1)
        self._fire(guard, last, onward, way=f"want{i}=1" if several else "")

    def _back_out(self, thread: _Thread, step: int, guard: str) -> None:
        i = thread.number
        locked: list[str] = []
        for earlier in self.program(thread)[:step]:
            if earlier.verb == "lock":
                locked.append(self.lock(thread, earlier))
            elif earlier.verb == "unlock":
                locked.remove(self.lock(thread, earlier))
        effect = {f"place{i}": "enter", f"want{i}": "0", f"held{i}": "0"}
        if thread.kind == "dirtier":
            effect |= {f"place{i}": "touch", "dirty": "dirty+1"}
        self._give_back(effect, thread.mount, f"held{i}")
        for way in self._release(thread, locked, effect):
            self._fire(guard, way.effect, *way.arrivals, way=way.guard)

    def _submit(self, thread: _Thread, here: str, onward: _Arrival) -> None:
        """Send the pages off, and the bio that a loop worker carries with them."""
        i = thread.number
        # What is above the bio: nothing but the thread, or a kind of bios by its place in the list.
        above: dict[_Above, int] = {(self._origin(thread), (), ()): 0}
        if thread.serves is not None:
            kinds = enumerate(self.bios[thread.serves], 1)
            above = {(kind.origin, kind.mounts, kind.pages): k for k, kind in kinds}
        for kind in self.bios[thread.mount]:
            carried = above.get((kind.origin, kind.mounts[:-1], kind.pages[:-1]))
            if carried is None:
                continue
            p, d = kind.pages[-1]
            effect, which = {kind.name: f"{kind.name}+1"}, []
            if carried:
                which.append(f"carries{i}={carried}")
                effect[f"carries{i}"] = "0"
            if self.allocates[i]:
                which.append(f"held{i}={p}")
                effect[f"held{i}"] = "0"
                if self.draws and not self.keeps_drawn:
                    # Where no reserve asks for drawn pages, a bio does not tell them from others.
                    which.append(f"drawn{i}={d}" if self.tells_drawn else "")
                    effect[f"drawn{i}"] = "0"
            self._fire(here, effect, onward, way=_both(which))

    def _origin(self, thread: _Thread) -> str:
        """What of the thread that sent it a bio tells."""
        if self.tells_owners:
            return f"thread{thread.number}"
        return f"{thread.kind}{thread.mount}"

    def _exit(self, thread: _Thread) -> None:
        i, exit_ = thread.number, self.place(thread, len(self.program(thread)))
        here = f"place{i}={exit_}"
        if thread.kind == "flusher":
            end = {f"quota{i}": f"quota{i}-1", f"place{i}": f"(quota{i}>1?enter:done)"}
        else:
            end = {f"place{i}": "touch" if thread.kind == "dirtier" else "idle"}
        match self.scheme.exit:
            case "nothing":
                self._fire(here, end)
                return
            case "give_back":
                effect = end | {f"own{i}": "0"}
                _add(effect, "free", f"+own{i}")
                self._fire(here, effect)
                return
            case "unclaim":
                effect = end | {f"claim{i}": "0"}
                _add(effect, "pool", f"+claim{i}")
                self._fire(here, effect)
                return
        self._fire(_both([here, f"semaphore!={i}"]), end)
        owner = _both([here, f"semaphore={i}"])
        if self.scheme.exit == "wait_full":
            self._end_section(thread, _both([owner, f"pool={self.reserve}"]), end)
            return
        if not self.allocates[i]:
            self._end_section(thread, owner, end)
            return
        drawn = f"drawn{i}"
        if self.scheme.exit == "refill_flag_set":
            owner = _both([owner, f"!stuck{i}"])
            self._fire(_both([owner, f"{drawn}>0", "free=0"]), {f"stuck{i}": "true"})
        self._end_section(thread, _both([owner, f"{drawn}=0"]), end)
        refill = {"free": "free-1", "pool": "pool+1", drawn: f"{drawn}-1"}
        self._fire(_both([owner, f"{drawn}>1", "free>0"]), refill)
        self._end_section(thread, _both([owner, f"{drawn}=1", "free>0"]), end | refill)

    def _end_section(self, thread: _Thread, guard: str, effect: _Effect) -> None:
        for way in self._release(thread, ["semaphore"], effect):
            self._fire(guard, way.effect, *way.arrivals, way=way.guard)

    # --- devices (section 6) ---------------------------------------------------------------------

    def _device(self, mount: int) -> None:
        device, kinds = self.scenario.mounts[mount].device, self.bios[mount]
        assert device is not None  # only mounts that stand on none get here
        rate = f"{device.rate!r}*min(bios{mount}, {device.depth})"
        for kind in kinds:
            effect = {kind.name: f"{kind.name}-1"}
            _add(effect, "free", int(kind.cleans))
            for m, (p, d), owner in zip(kind.mounts, kind.pages, kind.owners, strict=True):
                if self.scheme.returns == "pool":
                    _add(effect, "pool", d)
                    _add(effect, "free", p - d)
                elif self.scheme.returns == "own":
                    _add(effect, f"own{owner}", d)
                    _add(effect, "free", p - d)
                else:
                    self._give_back(effect, m, str(p))
            k = device.completion_pages
            guard = _both([f"{kind.name}>0", f"free>={k}" if k else ""])
            share = "" if len(kinds) == 1 else f"*{kind.name}/bios{mount}"
            self._fire(guard, effect, rate=rate + share)

    def _give_back(self, effect: _Effect, mount: int, pages: str) -> None:
        """Return pages to the pool of a mount, as many as fit, and the rest to free; or all."""
        if self.scheme.returns == "mount_pool":
            pool = f"pool{mount}"
            fits = f"min({pages}, {self.reserve}-{pool})"
            _add(effect, pool, f"+{fits}")
            _add(effect, "free", f"+{pages}-{fits}")
        elif pages != "0":
            _add(effect, "free", f"+{pages}")

    # --- hand-overs (section 3a) -----------------------------------------------------------------

    def _release(self, thread: _Thread, queues: Sequence[str], effect: _Effect) -> list[_Way]:
        """Every way in which a thread's release of locks or of the semaphore can go on."""
        ways = [_Way("", effect, ())]
        for queue in queues:
            ways = [
                _Way(_both([way.guard, then.guard]), then.effect, way.arrivals + then.arrivals)
                for way in ways
                for then in self._hand_over(thread, queue, way.effect)
            ]
        return ways

    def _hand_over(self, thread: _Thread, queue: str, effect: _Effect) -> list[_Way]:
        """To nobody, or to the first sleeper, wherever in its program it sleeps."""
        to_nobody = effect | {queue: "nobody"}
        if not self.asleep:
            return [_Way("", to_nobody, ())]
        ways = [_Way(f"sleepers_{queue}=0", to_nobody, ())]
        sleepers = [other for other in self.threads if self.sleeps_at(other, queue)]
        for heir in sleepers:
            if heir is thread:
                continue
            j = heir.number
            after = effect | {queue: str(j)}
            for other in sleepers:
                if other not in (thread, heir):
                    _add(after, f"queue{other.number}", f"-(sleeps{other.number}_{queue}?1:0)")
            after[f"queue{j}"] = "0"
            for step in self.sleeps_at(heir, queue):
                place = "enter" if step < 0 else self.place(heir, step)
                first = f"queue{j}=1 & place{j}={place}"
                if queue == "semaphore" and step >= 0:
                    ways += self._first_page(heir, step, first, after)
                else:
                    ways.append(_Way(first, after, (self._arrive(heir, step + 1),)))
        return ways

    def _first_page(self, heir: _Thread, step: int, first: str, effect: _Effect) -> list[_Way]:
        """Hand an heir that slept in an alloc a page of the pool, if there is one."""
        j, ways = heir.number, []
        page = dict(effect)
        _add(page, "pool", -1)
        page |= {f"held{j}": f"held{j}+1", f"drawn{j}": f"drawn{j}+1"}
        # A release that has just refilled the pool, or waited until it was full, leaves no doubt.
        full = self.scheme.exit == "wait_full"
        if (full and self.reserve == 0) or not (full or "pool" in effect):
            ways.append(_Way(_both([first, "" if full else "pool=0"]), effect, ()))
        if full and self.reserve == 0:
            return ways
        granted = first if full or "pool" in effect else f"{first} & pool>0"
        several = self.program(heir)[step].worst > 1
        if several:
            ways.append(_Way(f"{granted} & want{j}>1", page | {f"want{j}": f"want{j}-1"}, ()))
        last, onward = page | {f"want{j}": "0"}, self._arrive(heir, step + 1)
        ways.append(_Way(_both([granted, f"want{j}=1" if several else ""]), last, (onward,)))
        return ways


def _threads(scenario: Scenario) -> list[_Thread]:
    """All threads in the order of their numbers: mount by mount, then the loop workers."""
    found: list[_Thread] = []
    for m, mount in enumerate(scenario.mounts):
        for kind, count in (("flusher", mount.flushers), ("dirtier", mount.dirtiers)):
            found += [_Thread(len(found) + k, kind, m) for k in range(count)]
    for m, mount in enumerate(scenario.mounts):
        if mount.on is not None:
            found.append(_Thread(len(found), "worker", mount.on, m))
    return found
