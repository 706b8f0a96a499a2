"""The figures of the benchmark's controller parts, computed from the output of its driver."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any, Dict, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.bench import controller, report  # noqa: E402
from ensign_dev.bench.figures import Figure, Part  # noqa: E402


def entry(bindings: int, seconds: float, floor: float, steady: int) -> Dict[str, Any]:
    """What the driver prints for one size."""
    return {
        "bindings": bindings, "identities": bindings // 10, "namespaces": 1, "seconds": seconds, "cpu_seconds": seconds / 2,
        "cluster_cpu_seconds": seconds, "peak_bytes": steady * 2, "steady_bytes": steady,
        "arm": {"GET identity": 1, "LIST credentials": 1, "PUT credential": bindings},
        "kubernetes": {"get managedidentitybindings": bindings, "patch managedidentitybindings": bindings,
                       "patch managedidentitybindings/status": bindings, "watch pods": 1},
        "floor": {"seconds": floor, "cluster_cpu_seconds": floor},
    }


def usage(rss: int, peak: Optional[int] = None) -> Dict[str, int]:
    """What the driver prints for one process."""
    return {"rss_bytes": rss, "peak_bytes": peak or rss, "anonymous_bytes": rss // 2, "descriptors": 20}


def figure(part: Part, name: str) -> Figure:
    """The figure whose name starts with `name`."""
    return next(one for one in part.figures if one.name.startswith(name))


def met(part: Part, name: str) -> Optional[bool]:
    """Whether the figure's target is met."""
    target = figure(part, name).target
    assert target is not None
    return target.met


class Reconcile(unittest.TestCase):
    runs: List[List[Dict[str, Any]]] = [[entry(10, 0.1, 0.05, 1000), entry(100, 1.0, 0.5, 91_000)]] * 2

    def test_compares_figures_with_the_baseline_of_the_same_run(self) -> None:
        part = controller.reconcile_part(self.runs)
        self.assertEqual(figure(part, "100 bindings ready").ratio, 2.0)
        self.assertEqual(figure(part, "Writes to Kubernetes").median, 2.0)
        self.assertEqual(figure(part, "Reads from Kubernetes").median, 1.01)
        self.assertEqual(figure(part, "Memory per").median, 1000)
        self.assertTrue(met(part, "Time per binding"))
        self.assertIn("100 bindings ready", report.table(part))

    def test_misses_the_target_if_the_cost_per_binding_grows(self) -> None:
        part = controller.reconcile_part([[entry(10, 0.1, 0.05, 1000), entry(100, 2.0, 0.5, 2000)]])
        self.assertFalse(met(part, "Time per binding"))

    def test_misses_the_target_if_a_write_is_rejected(self) -> None:
        run = [entry(10, 0.1, 0.05, 1000), entry(100, 1.0, 0.5, 2000)]
        run[1]["arm"]["answered 429"] = 1
        self.assertFalse(met(controller.reconcile_part([run]), "429 and 409"))


class Others(unittest.TestCase):
    def test_rate_limits_may_cost_five_percent(self) -> None:
        found = {"bindings": 100, "identities": 5, "subscriptions": 1, "seconds": 105.0, "floor_seconds": 100.0,
                 "arm": {"PUT credential": 100, "LIST credentials": 9}}
        self.assertTrue(met(controller.limits_part(found), "100 credentials"))
        self.assertFalse(met(controller.limits_part({**found, "seconds": 106.0}), "100 credentials"))

    def test_a_fleet_in_steady_state_lists_each_identity_once_and_writes_nothing(self) -> None:
        found = {"bindings": 100, "identities": 5, "identities_listed": 5, "periods": 10, "period_seconds": 10, "lists": 50,
                 "lists_due": 50, "shortest_gap_seconds": 9.9, "other_arm_requests": 0, "arm_writes": 0,
                 "kubernetes_writes": 1, "cpu_seconds": 1.0, "kubernetes": {"list pods": 10}}
        part = controller.steady_part(found)
        self.assertTrue(met(part, "LISTs per identity"))
        self.assertFalse(met(part, "Writes to Kubernetes"))
        self.assertFalse(met(controller.steady_part({**found, "identities_listed": 4}), "LISTs per identity"))

    def test_pods_must_not_cost_memory(self) -> None:
        def both(rest: int) -> Dict[str, Any]:
            return {name: {"rest": usage(rest), "relist": usage(rest, rest * 3)} for name in ("controller", "webhook")}

        found = {
            "bindings": 10, "identities": 1, "service_accounts": 10, "pods": 50, "empty": None,
            "without_pods": both(1000), "with_pods": both(2000),
            "with_pods_from_start": {name: usage(1000) for name in ("controller", "webhook")},
        }
        part = controller.memory_part(found)
        self.assertFalse(met(part, "controller, with 50 pods"))
        self.assertFalse(met(part, "webhook, peak during a relist"))
        self.assertTrue(met(part, "webhook, in steady state"))
        self.assertTrue(met(part, "webhook, started with 50 pods"))
        found["with_pods_from_start"] = {name: usage(1200) for name in ("controller", "webhook")}
        self.assertFalse(met(controller.memory_part(found), "webhook, started with 50 pods"))

    def test_growth_is_the_slope_over_the_second_half(self) -> None:
        def looks(grows: int) -> Dict[str, Any]:
            sizes = [0, 10 << 20] + [(10 << 20) + number * grows for number in range(6)]
            return {"count": 800, "looks": [
                {"done": 100 * number, "usage": usage(size)} for number, size in enumerate(sizes)
            ]}

        part = controller.soak_part({"reviews": looks(0), "reconciles": looks(1 << 20)})
        self.assertTrue(met(part, "webhook, growth of memory"))
        self.assertFalse(met(part, "controller, growth of memory"))


if __name__ == "__main__":
    unittest.main()
