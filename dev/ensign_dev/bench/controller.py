"""The parts about the controller: what the driver of benches/reconcile found, as figures.

One run of the driver serves every requested part, because a control plane and ten thousand bindings take long. Only
`reconcile` is repeated as a whole; the others repeat within one run.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

from ..image import layout
from .context import Context
from .figures import Figure, Limit, Part, Plot, Series, Target, at_most

DRIVER = "reconcile"
PARTS = ("reconcile", "steady", "restart", "failover", "one", "memory")
SIZES = (10, 100, 1000, 10_000)
RUN_SECONDS = 45 * 60.0
MIB = 1024 * 1024
READS = ("get", "list", "watch")

Found = Dict[str, Any]
_runs: Dict[int, List[Found]] = {}


def runs(context: Context) -> List[Found]:
    """What each run of the driver printed: the first one contains every requested part."""
    if id(context) not in _runs:
        wanted = [part for part in PARTS if not context.chosen or part in context.chosen]
        again = ["reconcile"] if "reconcile" in wanted else []
        repeats = context.runs if again else 1
        _runs[id(context)] = [
            drive(context, wanted if number == 0 else again, number, repeats) for number in range(repeats)
        ]
    return _runs[id(context)]


def drive(context: Context, parts: Sequence[str], number: int, repeats: int) -> Found:
    """One run of the driver."""
    context.progress.say(f"run {number + 1} of {repeats}: {', '.join(parts)}")
    return context.drive(DRIVER, [
        "--parts", ",".join(parts), "--sizes", ",".join(map(str, SIZES)), "--repeats", str(context.runs),
        *program(context),
    ], RUN_SECONDS)


def program(context: Context) -> List[str]:
    """What is measured, as the image runs it."""
    variables = (f"--env={name}={value}" for name, value in layout.VARIABLES.items())
    return ["--ensign", str(context.measured), *variables]


def reconcile(context: Context) -> Part:
    """From scratch: new bindings, until each is ready."""
    return reconcile_part([run["reconcile"] for run in runs(context)])


def reconcile_part(measured: Sequence[List[Found]]) -> Part:
    """The figures of runs, each of which has an entry for each size."""
    sizes = [entry["bindings"] for entry in measured[0]]
    large = sizes[-1]

    def of(size: int, key: str) -> List[float]:
        return [float(entry[key]) for run in measured for entry in run if entry["bindings"] == size]

    def floors(size: int) -> List[float]:
        return [float(entry["floor"]["seconds"]) for run in measured for entry in run if entry["bindings"] == size]

    seconds = of(large, "seconds")
    figures = [
        Figure(f"{large:,} bindings ready", "s", seconds, Limit("the same writes alone, s", floors(large)),
               at_most(seconds, 60.0, "≤ 60 s")),
        Figure(f"Processor time of the controller, {large:,} bindings", "s", of(large, "cpu_seconds")),
        Figure("Processor time of the API server and etcd meanwhile", "s", of(large, "cluster_cpu_seconds"),
               Limit("the same writes alone, s", [float(run[-1]["floor"]["cluster_cpu_seconds"]) for run in measured])),
    ]
    last = [run[-1] for run in measured]
    puts = [entry["arm"].get("PUT credential", 0) / large for entry in last]
    figures += [
        Figure("Writes to ARM per binding", "", puts, Limit("one PUT", [1.0]), at_most(puts, 1.0, "1")),
        Figure("Reads from ARM per identity", "", [arm_reads(entry) / entry["identities"] for entry in last],
               Limit("a LIST and a GET", [2.0])),
        Figure("Writes to Kubernetes per binding", "", [kubernetes(entry, True) / large for entry in last],
               Limit("finalizer and status", [2.0])),
        Figure("Reads from Kubernetes per binding", "", [kubernetes(entry, False) / large for entry in last]),
        Figure("429 and 409 responses caused by Ensign", "", [refused(entry) for entry in last], None,
               at_most([refused(entry) for entry in last], 0.0, "0")),
    ]
    if len(sizes) > 1:
        before = sizes[-2]
        for name, key in (("Time", "seconds"), ("Processor time", "cpu_seconds")):
            growth = [(b / large) / (a / before) for a, b in zip(of(before, key), of(large, key)) if a]
            if growth:
                figures.append(Figure(
                    f"{name} per binding, {large:,} compared with {before:,}", "times", growth, None,
                    at_most(growth, 1.2, "no growth (≤ 1.2)"),
                ))
    steady = of(large, "steady_bytes")
    each = [(b - a) / (large - sizes[0]) for a, b in zip(of(sizes[0], "steady_bytes"), steady)] if len(sizes) > 1 else []
    figures += [
        Figure(f"Peak memory, {large:,} bindings", "MiB", [size / MIB for size in of(large, "peak_bytes")]),
        Figure(f"Memory afterwards, {large:,} bindings", "MiB", [size / MIB for size in steady]),
    ]
    if each:
        figures.append(Figure("Memory per binding", "bytes", each, None, at_most(each, 2048.0, "≤ 2 KB")))

    def line(key: str, scale: float = 1.0) -> List[Tuple[float, float]]:
        return [(float(size), median(of(size, key)) / scale) for size in sizes]

    plots = [
        Plot("reconcile-seconds.svg", "From scratch until every binding is ready", "bindings", "seconds", [
            Series("controller", line("seconds")),
            Series("processor time of the controller", line("cpu_seconds")),
            Series("the same writes alone", [(float(size), median(floors(size))) for size in sizes], dashed=True),
        ], log_x=True, log_y=True),
        Plot("reconcile-memory.svg", "Memory of the controller", "bindings", "MiB", [
            Series("peak", line("peak_bytes", MIB)), Series("afterwards", line("steady_bytes", MIB)),
        ], log_x=True),
    ]
    return Part("reconcile", figures, plots, [
        "The controller is a separate process with the RBAC rules of an install; rate limits for ARM are lifted, and the "
        "emulator responds to a write immediately. It runs beside the API server and etcd on the same cores.",
    ])


def median(values: Sequence[float]) -> float:
    """The median."""
    return sorted(values)[len(values) // 2]


def arm_reads(entry: Found) -> float:
    """How many reads ARM received."""
    return float(sum(count for kind, count in entry["arm"].items() if kind.split(" ")[0] in ("GET", "LIST")))


def refused(entry: Found) -> float:
    """How many requests ARM answered with 409 or 429."""
    return float(sum(entry["arm"].get(f"answered {status}", 0) for status in (409, 429)))


def kubernetes(entry: Found, writes: bool) -> float:
    """How many writes, or reads, the API server received."""
    counts = entry["kubernetes"].items()
    return float(sum(count for kind, count in counts if (kind.split(" ")[0] not in READS) == writes))


def limits(context: Context) -> Part:
    """The same under Azure's published rate limits, on a simulated clock."""
    found = context.drive(DRIVER, ["--parts", "limits", "--sizes", str(SIZES[-1])], RUN_SECONDS)["limits"]
    return limits_part(found)


def limits_part(found: Found) -> Part:
    """The figures of a run under rate limits."""
    took, floor = float(found["seconds"]), float(found["floor_seconds"])
    count = refused(found)
    return Part("limits", [
        Figure(f"{found['bindings']:,} credentials under the published rate limits", "s", [took],
               Limit("the rate limits themselves, s", [floor]), Target("≤ 1.05 times the limits", took <= 1.05 * floor)),
        Figure("429 and 409 responses caused by Ensign", "", [count], None, at_most([count], 0.0, "0")),
        Figure("Writes to ARM per binding", "", [found["arm"].get("PUT credential", 0) / found["bindings"]],
               Limit("one PUT", [1.0])),
        Figure("LISTs per identity", "", [found["arm"].get("LIST credentials", 0) / found["identities"]]),
    ], [], [
        "Simulated time, which stops while any work is in progress and advances by at least half a second, so it does not "
        "depend on the machine and one run is enough. The whole controller runs in the driver, on the real API server; the "
        "emulator enforces its own rate limits on the same clock. "
        f"{found['identities']:,} identities in {found['subscriptions']} subscriptions.",
    ])


def steady(context: Context) -> Part:
    """A fleet in steady state."""
    return steady_part(runs(context)[0]["steady"])


def steady_part(found: Found) -> Part:
    """The figures of a fleet in steady state."""
    lists = [found["lists"] / found["identities"] / found["periods"]]
    # A check may fall on either end of the measured time.
    is_one = abs(found["lists"] - found["lists_due"]) <= found["identities"] * 0.05 and (
        found["identities_listed"] == found["identities"]
    )
    return Part("steady", [
        Figure("LISTs per identity and interval", "", lists, Limit("one", [1.0]), Target("1", is_one)),
        Figure("Shortest time between two LISTs", "s", [found["shortest_gap_seconds"]],
               Limit("the interval, s", [found["period_seconds"]])),
        zero("Other requests to ARM", found["other_arm_requests"]),
        zero("Writes to ARM", found["arm_writes"]),
        zero("Writes to Kubernetes except for the Lease", found["kubernetes_writes"]),
        Figure("Processor time per interval", "ms", [found["cpu_seconds"] * 1000 / found["periods"]]),
        Figure("Reads from Kubernetes per interval", "", [kubernetes(found, False) / found["periods"]]),
    ], [], [f"{found['bindings']:,} bindings under {found['identities']:,} identities, {found['periods']} intervals."])


def zero(name: str, count: float) -> Figure:
    """A count that has to be zero."""
    return Figure(name, "", [float(count)], None, at_most([float(count)], 0.0, "0"))


def restart(context: Context) -> Part:
    """A restart with everything in sync."""
    return restart_part(runs(context)[0]["restart"])


def restart_part(found: Found) -> Part:
    """The figures of restarts."""
    rounds = found["rounds"]

    def of(key: str) -> List[float]:
        return [float(entry[key]) for entry in rounds]

    floor = Limit("reading the list of bindings, s", [found["floor"]])
    return Part("restart", [
        Figure("Webhook ready", "s", of("webhook_ready_seconds"), floor, at_most(of("webhook_ready_seconds"), 1.0, "≤ 1 s")),
        Figure("Caches of the controller filled", "s", of("caches_seconds"), floor, at_most(of("caches_seconds"), 2.0, "≤ 2 s")),
        Figure("Leader elected", "s", of("leads_seconds")),
        Figure("Every identity checked", "s", of("all_identities_seconds")),
        zero("Writes to ARM", max(of("arm_writes"))),
        zero("Writes to Kubernetes except for the Lease", max(of("kubernetes_writes"))),
    ], [], [f"{found['bindings']:,} bindings; a new leader compares the versions of all objects with its cache before it decides."])


def failover(context: Context) -> Part:
    """Two controllers, of which the leader exits."""
    found = runs(context)[0]["failover"]
    lease, crash, graceful = float(found["lease_seconds"]), found["crash_seconds"], found["graceful_seconds"]
    return Part("failover", [
        Figure("A standby writes after a crash", "s", crash, Limit("the lease, s", [lease]),
               at_most(crash, lease + 2, "≤ lease + 2 s")),
        Figure("A standby writes after a graceful shutdown", "s", graceful, None, at_most(graceful, 1.0, "≤ 1 s")),
    ])


def one(context: Context) -> Part:
    """One binding beside many others."""
    found = runs(context)[0]["one"]
    took = [seconds * 1000 for seconds in found["ready_seconds"]]
    patches = [seconds * 1000 for seconds in found["patches_seconds"]]
    return Part("one", [
        Figure("One binding from its creation until it is ready", "ms", took, Limit("three writes alone, ms", patches)),
    ], [], [f"Beside {found['bindings_beside']:,} others; the emulator responds immediately, and the propagation delay is 0 s."])


def memory(context: Context) -> Part:
    """The memory of both processes."""
    return memory_part(runs(context)[0]["memory"])


def memory_part(found: Found) -> Part:
    """The figures of both processes."""
    figures: List[Figure] = []
    for name in ("controller", "webhook"):
        rest = found["without_pods"][name]["rest"]["rss_bytes"]
        # Of the same process right before the pods were created, after one relist.
        before = found["without_pods"][name]["relist"]["rss_bytes"]
        crowded = found["with_pods"][name]["rest"]["rss_bytes"]
        fresh = found["with_pods_from_start"][name]["rss_bytes"]
        kept = found["without_pods"][name]["rest"]["anonymous_bytes"]
        relist = [found[state][name]["relist"]["peak_bytes"] / found[state][name]["rest"]["rss_bytes"]
                  for state in ("without_pods", "with_pods")]
        figures += [
            Figure(f"{name}, in steady state", "MiB", [rest / MIB], None, at_most([rest / MIB], 30.0, "≤ 30 MiB")),
            Figure(f"{name}, without pages of its binary", "MiB", [kept / MIB]),
            Figure(f"{name}, with {found['pods']:,} pods", "MiB", [crowded / MIB],
                   Limit("right before, MiB", [before / MIB]), Target("no more", crowded <= before * 1.1)),
            Figure(f"{name}, started with {found['pods']:,} pods", "MiB", [fresh / MIB], Limit("without, MiB", [rest / MIB]),
                   Target("no more", fresh <= rest * 1.1)),
            Figure(f"{name}, peak during a relist", "times", relist, None, at_most(relist, 2.0, "≤ 2 times")),
        ]
        if found.get("empty"):
            grown = found["with_bindings"][name]["anonymous_bytes"] - found["empty"][name]["anonymous_bytes"]
            each = grown / found["bindings"]
            figures.append(Figure(f"{name}, per binding", "bytes", [each], None, at_most([each], 2048.0, "≤ 2 KB")))
    return Part("memory", figures, [], [
        f"{found['bindings']:,} bindings under {found['identities']:,} identities, and {found['service_accounts']:,} service "
        "accounts with the annotations of azure-workload-identity, which the webhook keeps in compatibility mode. Memory in "
        "steady state includes pages of the binary, which the kernel reclaims when memory is short.",
    ])


def soak(context: Context) -> Part:
    """Many reviews and reconciles."""
    found = context.drive(DRIVER, [
        "--parts", "soak", "--sizes", "1000", *program(context),
    ], 4 * 3600.0)["soak"]
    return soak_part(found)


def soak_part(found: Found) -> Part:
    """Whether memory or descriptors grow."""
    figures, series = [], []
    for name, what in (("webhook", "reviews"), ("controller", "reconciles")):
        looks, count = found[what]["looks"], found[what]["count"]
        points = [(look["done"] * 100 / count, look["usage"]["rss_bytes"] / MIB) for look in looks]
        series.append(Series(f"{name}, {count:,} {what}", points))
        # The first half warms up: buffers and pools grow to what the load needs.
        half = looks[len(looks) // 2:]
        for key, unit, scale in (("rss_bytes", "KiB", 1024.0), ("descriptors", "", 1.0)):
            grown = slope([(look["done"], look["usage"][key]) for look in half]) * count / scale
            bound = 1024.0 if scale > 1 else 1.0
            figures.append(Figure(
                f"{name}, growth of {'memory' if scale > 1 else 'descriptors'} in {count:,} {what}", unit, [grown], None,
                at_most([grown], bound, "none (≤ 1 MiB)" if scale > 1 else "none"),
            ))
    plot = Plot("soak.svg", "Memory over many reviews and reconciles", "percent done", "MiB", series)
    return Part("soak", figures, [plot], ["The slope over the second half of the run, extrapolated to the whole run."])


def slope(points: Sequence[Tuple[float, float]]) -> float:
    """The slope of the regression line."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
