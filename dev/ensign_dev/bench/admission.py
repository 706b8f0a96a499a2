"""Reviews through the real webhook, compared with an echo server that does the same job and decides nothing.

The webhook is the image's program, with its bindings from a real API server. The server has one core to itself, the
client another; webhook and echo server are measured alternately.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .. import children, environment, seed
from ..failure import Failure
from ..image import layout
from ..kubectl import Kubectl
from ..waiting import until
from .container import MIB, Container, NoLimit, container
from .context import Context
from .cores import Cores, cores, on_core
from .figures import Figure, Limit, Part, Plot, Series, Target, at_least, at_most

NAME = "admission"
DRIVER = "admission"
KIB = 1024
SIZES_KIB = (2, 6, 30, 200)
USUAL_KIB = 6
FEW, MANY = 10, 10_000
CONNECTIONS = 16
CLOSED_SECONDS = 1.5
WARM_UP_SECONDS = 15.0
OPEN_SECONDS = 4.0
RATE = 1_000
RATES = (1_000, 2_000, 4_000, 8_000, 12_000, 16_000)
RATE_SECONDS = 1.0
BURST = 200
QUOTA = 0.1
QUOTA_SECONDS = 5.0
MEMORY_MIB = 30
PER_SECOND, PER_SECOND_LIMITED, OF_FLOOR, P99_MS = 20_000, 1_000, 0.5, 1.0
SEED_SECONDS = 600.0
LOAD_SECONDS = 60.0
WATCH_SECONDS = 60.0

Result = Dict[str, Any]
Results = List[Result]


class Server(NamedTuple):
    """A server that responds to reviews."""

    address: str
    ca_file: Path
    pid: int


class Bench:
    """The webhook with its bindings, and the echo server."""

    def __init__(self, context: Context, own: environment.Environment, where: Cores) -> None:
        self.context, self.own, self.where = context, own, where
        self.kubectl = own.kubectl(context.programs.cluster)
        # It would reject bindings whose identities do not exist.
        if not own.registry.stop("controller"):
            raise Failure("could not stop the controller")
        self.bindings = 0
        self.webhook = self.restart_webhook()

    def stop_webhook(self) -> None:
        """Stops the webhook."""
        if not self.own.registry.stop("webhook"):
            raise Failure("could not stop the webhook")

    def restart_webhook(self, program: Optional[Path] = None) -> Server:
        """Restarts the webhook on its core, optionally with another program than the image's."""
        self.stop_webhook()
        programs = self.context.programs._replace(ensign=program or self.context.measured)
        with on_core(self.where.server):
            self.own.start_again(programs, "webhook", die_with_parent=True)
        ca_file = self.own.root / "webhook-ca.crt"
        ca_file.write_bytes(certificate(self.kubectl))
        return Server(self.own.info["webhook_url"].split("/")[2], ca_file, self._pid("webhook"))

    def echo(self, patch_bytes: int) -> Server:
        """Starts the echo server."""
        ca_file = self.own.root / "echo-ca.crt"
        command: "List[children.Argument]" = [
            self.context.drivers[DRIVER], "echo", "--ca-file", ca_file, "--patch-bytes", str(patch_bytes),
        ]
        with on_core(self.where.server):
            self.own.registry.start("echo", command, children.environment(layout.VARIABLES), die_with_parent=True)
        address = str(self.own.ready_line("echo", LOAD_SECONDS)["address"])
        return Server(address, ca_file, self._pid("echo"))

    def _pid(self, name: str) -> int:
        record = self.own.registry.find(name)
        if record is None:
            raise Failure(f"{name} exited; {self.own.registry.tail(name)}")
        return record.identity.pid

    def grow(self, bindings: int) -> None:
        """Creates bindings up to this number, and waits until the webhook knows the last one."""
        self.context.progress.update(f"admission: creating {bindings} bindings ...")
        arguments = ["seed", "--from", str(self.bindings), "--to", str(bindings)]
        self.context.drive(DRIVER, arguments, SEED_SECONDS, {"KUBECONFIG": self.own.info["kubeconfig"]})
        self.bindings = bindings
        until("the webhook to know the bindings", lambda: self._answers(bindings), WATCH_SECONDS)

    def _answers(self, bindings: int) -> Optional[bool]:
        """Whether reviews for bindings from the first to nearly the last all get a patch."""
        shape = ["burst", "--connections", "20", "--bindings", str(bindings), "--different", "20"]
        return True if self.load(self.webhook, shape)["errors"] == 0 else None

    def load(self, server: Server, shape: List[str], kib: int = USUAL_KIB) -> Result:
        """The result of a load."""
        arguments = ["load", *shape, "--address", server.address, "--ca-file", str(server.ca_file)]
        arguments += ["--pid", str(server.pid), "--bytes", str(kib * KIB)]
        if "--bindings" not in shape:
            arguments += ["--bindings", str(self.bindings), "--different", "16" if kib > 30 else "64"]
        with on_core(self.where.client):
            return self.context.drive(DRIVER, arguments, LOAD_SECONDS)

    def closed(self, server: Server, kib: int = USUAL_KIB, seconds: float = CLOSED_SECONDS) -> Result:
        """As many reviews as possible, over persistent connections."""
        shape = ["closed", "--connections", str(CONNECTIONS), "--seconds", str(seconds)]
        return good(self.load(server, shape, kib))

    def open(self, server: Server, rate: int, seconds: float) -> Result:
        """Reviews at a fixed rate."""
        return good(self.load(server, ["open", "--rate", str(rate), "--seconds", str(seconds)]))

    def burst(self, server: Server) -> Result:
        """Many new connections at once; errors count as figures."""
        return self.load(server, ["burst", "--connections", str(BURST)])


def certificate(kubectl: Kubectl) -> bytes:
    """The CA of the webhook's certificate."""
    secret = kubectl.json("get", "secret", "ensign-webhook-tls", "-n", seed.NAMESPACE)
    return base64.b64decode(secret["data"]["ca.crt"])


def good(result: Result) -> Result:
    """A result without errors."""
    if result["errors"]:
        raise Failure(f"{result['errors']} reviews failed, the first: {result['first_error']}")
    return result


def run(context: Context) -> Part:
    """The part."""
    where = cores()
    if where is None:
        return Part(NAME, [], notes=["Not measured: server and client need a core each, and this machine has one."])
    own = context.environment(NAME)
    with own.locked(wait=False):
        try:
            own.start(context.programs, 0, die_with_parent=True, mode="webhook")
            return Measured(Bench(context, own, where)).part()
        finally:
            own.stop()


class Measured:
    """All results, of all runs."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.few: Results = []
        self.closed: Dict[int, Tuple[Results, Results]] = {kib: ([], []) for kib in SIZES_KIB}
        self.open: Tuple[Results, Results] = ([], [])
        self.rates: Dict[int, Tuple[Results, Results]] = {rate: ([], []) for rate in RATES}
        self.burst: Tuple[Results, Results] = ([], [])
        self.limited: Results = []
        self.kills = 0
        self.kept: List[float] = []
        self.notes: List[str] = []
        self._measure()

    def _measure(self) -> None:
        bench, runs = self.bench, range(self.bench.context.runs)
        bench.grow(FEW)
        # A new process uses the cores for a while, and the first reviews grow a server's buffers.
        probe = bench.closed(bench.webhook, seconds=WARM_UP_SECONDS)
        servers = (bench.webhook, bench.echo(patch_bytes=probe["answer_bytes"] - ENVELOPE_BYTES))
        self.few += [bench.closed(bench.webhook) for _ in runs]
        bench.grow(MANY)
        for run in runs:
            bench.context.progress.update(f"admission: run {run + 1} of {len(runs)} ...")
            for which, server in enumerate(servers):
                for kib in SIZES_KIB:
                    self.closed[kib][which].append(bench.closed(server, kib))
                self.open[which].append(bench.open(server, RATE, OPEN_SECONDS))
                for rate in RATES:
                    self.rates[rate][which].append(bench.open(server, rate, RATE_SECONDS))
                self.burst[which].append(bench.burst(server))
        self._measure_limited()

    def _measure_limited(self) -> None:
        """As in a container of 100m CPU and 30 MiB; the CPU quota applies once the webhook is ready."""
        bench = self.bench
        folder = bench.own.root / "limited"
        folder.mkdir(exist_ok=True)
        script = folder / "start"
        try:
            with container(MEMORY_MIB) as group:
                script.write_text(group.script(bench.context.measured, folder / "ensign"))
                script.chmod(0o755)
                try:
                    self._measure_in(group, script)
                except NoLimit:
                    raise
                except Failure:
                    # Being killed by the kernel is a figure; any other exit is a failure.
                    if group.kills() == 0:
                        raise
                finally:
                    bench.stop_webhook()
                    self.kills = group.kills()
        except NoLimit as error:
            self.notes.append(f"Not measured: the webhook with a tenth of a core and {MEMORY_MIB} MiB; {error}.")

    def _measure_in(self, group: Container, script: Path) -> None:
        limited = self.bench.restart_webhook(script)
        with group.quota(limited.pid, QUOTA):
            for _ in range(self.bench.context.runs):
                self.limited.append(self.bench.closed(limited, seconds=QUOTA_SECONDS))
                self.kept.append(group.kept() / MIB)

    def part(self) -> Part:
        """The figures."""
        return Part(NAME, [*self._figures(), *self._limited_figures()], self._plots(), [*self.notes, *self._texts()])

    def _figures(self) -> List[Figure]:
        found = []
        for kib, (webhook, echo) in self.closed.items():
            rate, floor = pick(webhook, "per_second"), pick(echo, "per_second")
            target = throughput_target(rate, floor) if kib == USUAL_KIB else None
            title = f"reviews of {kib} KiB, {MANY:,} bindings, closed loop"
            found.append(Figure(title, "/s", rate, Limit("echo", floor), target))
        found.append(Figure(
            f"reviews of {USUAL_KIB} KiB, {FEW} bindings, closed loop", "/s", pick(self.few, "per_second"),
            Limit(f"{MANY:,} bindings", pick(self.closed[USUAL_KIB][0], "per_second")),
        ))
        usual, floor = self.closed[USUAL_KIB]
        found.append(Figure(
            f"processor time of a review of {USUAL_KIB} KiB", "µs", pick(usual, "server_us"),
            Limit("echo", pick(floor, "server_us")),
        ))
        for quantile, name in QUANTILES:
            found.append(Figure(
                f"{name}, closed loop of {CONNECTIONS} connections", "ms", pick(usual, quantile),
                Limit("echo", pick(floor, quantile)),
            ))
        for quantile, name in QUANTILES:
            runs = pick(self.open[0], quantile)
            target = at_most(runs, P99_MS, f"≤ {P99_MS:.0f} ms") if quantile == "p99_ms" else None
            found.append(Figure(
                f"{name}, open loop at {RATE:,}/s", "ms", runs, Limit("echo", pick(self.open[1], quantile)), target
            ))
        errors = pick(self.burst[0], "errors")
        # No run may have any.
        target = Target("0", max(errors) == 0)
        found.append(Figure(f"errors, burst of {BURST} new connections", "", errors, None, target))
        found.append(Figure(
            f"time until all {BURST} of a burst are answered", "ms", pick(self.burst[0], "max_ms"),
            Limit("echo", pick(self.burst[1], "max_ms")),
        ))
        return found

    def _limited_figures(self) -> List[Figure]:
        found = []
        if self.limited:
            rate = pick(self.limited, "per_second")
            least = f"≥ {PER_SECOND_LIMITED:,}/s"
            found = [
                Figure(f"reviews with {QUOTA} core and {MEMORY_MIB} MiB, {MANY:,} bindings", "/s", rate, None,
                       at_least(rate, PER_SECOND_LIMITED, least)),
                Figure("p99 within these limits", "ms", pick(self.limited, "p99_ms")),
                Figure("memory that the kernel can't reclaim", "MiB", self.kept, Limit("limit", [MEMORY_MIB])),
            ]
        if self.limited or self.kills:
            found.append(Figure("killed by the kernel (out of memory)", "times", [float(self.kills)], None,
                                Target("0", self.kills == 0)))
        return found

    def _plots(self) -> List[Plot]:
        def median(results: Results, key: str) -> float:
            return Figure(key, "", pick(results, key)).median

        sides = (("webhook", 0), ("echo (baseline)", 1))
        by_size = [
            Series(name, [(kib, median(self.closed[kib][side], "per_second")) for kib in SIZES_KIB], side == 1)
            for name, side in sides
        ]
        by_rate = [
            Series(f"{name}, {label}", [(rate, median(self.rates[rate][side], key)) for rate in RATES], side == 1)
            for key, label in (("p50_ms", "p50"), ("p99_ms", "p99")) for name, side in sides
        ]
        return [
            Plot("admission-throughput.svg", "Reviews on one core", "size of a review, KiB", "reviews/s", by_size,
                 log_x=True, log_y=True),
            Plot("admission-latency.svg", f"Latency of reviews of {USUAL_KIB} KiB, from their scheduled time",
                 "reviews/s", "ms", by_rate, log_x=True, log_y=True),
        ]

    def _texts(self) -> List[str]:
        busy = Figure("", "", pick(self.closed[USUAL_KIB][1], "client_busy")).median
        return [
            f"Server and client have one core each, over TLS on loopback; the client's core was {busy:.0%} busy while "
            "the echo server was measured in a closed loop. Open-loop latencies count from the scheduled time of a review.",
            "Processor time and memory are limited by a cgroup, as for a container; its memory includes the pages of the "
            "binary, and what the kernel allocates for the process.",
        ]


QUANTILES = (("p50_ms", "p50"), ("p99_ms", "p99"), ("p999_ms", "p99.9"))
# A response without its patch.
ENVELOPE_BYTES = len(
    '{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{'
    '"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","allowed":true,"patchType":"JSONPatch","patch":""}}'
)


def pick(results: Results, key: str) -> List[float]:
    """One value of each result."""
    return [float(result[key]) for result in results]


def throughput_target(rate: List[float], floor: List[float]) -> Target:
    """Both halves of the target."""
    enough = at_least(rate, PER_SECOND, "").met
    ratio = Figure("", "", rate, Limit("", floor)).ratio
    return Target(f"≥ {PER_SECOND:,}/s and ≥ {OF_FLOOR} of the echo", bool(enough and ratio and ratio >= OF_FLOOR))
