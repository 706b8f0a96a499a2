"""Which steps run in parallel, and what happens to the dependents of a failed step."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.schedule import Schedule  # noqa: E402
from ensign_dev.steps import BUSY, Outcome, Step  # noqa: E402


def step(name, **fields):
    return Step(name, "unit", "about", lambda out: None, **fields)


class ASchedule(unittest.TestCase):
    def schedule(self, *steps, capacity=3):
        self.scheduled = Schedule(steps, capacity)
        return self.scheduled

    def start(self):
        """Starts all steps that can start; returns their names."""
        names = []
        while True:
            started = self.scheduled.start()
            if started is None:
                return names
            names.append(started.name)

    def end(self, name, reason=None):
        """Finishes a step; returns the names of those that are not run because of it."""
        running = next(one for one in self.scheduled.running if one.name == name)
        return [skipped.step.name for skipped in self.scheduled.end(Outcome(running, 0.0, 1.0, reason))]

    def reasons(self):
        return {outcome.step.name: outcome.reason for outcome in self.scheduled.outcomes}

    def test_starts_steps_in_order_up_to_its_capacity(self):
        self.schedule(*map(step, "abcd"))
        self.assertEqual(self.start(), ["a", "b", "c"])
        self.end("b")
        self.assertEqual(self.start(), ["d"])

    def test_runs_steps_sequentially_with_a_capacity_of_one(self):
        self.schedule(step("a"), step("b", weight=BUSY), step("c", alone=True), step("d", after=("b",)), capacity=1)
        order = []
        while not self.scheduled.is_done:
            (name,) = self.start()
            order.append(name)
            self.end(name)
        self.assertEqual(order, ["a", "b", "c", "d"])

    def test_counts_a_busy_step_twice(self):
        self.schedule(step("a", weight=BUSY), step("b", weight=BUSY), step("c"))
        self.assertEqual(self.start(), ["a"])
        self.end("a")
        self.assertEqual(self.start(), ["b", "c"])

    def test_lets_no_step_overtake_one_that_waits_for_capacity(self):
        self.schedule(step("a"), step("b"), step("c", alone=True), step("d"))
        self.assertEqual(self.start(), ["a", "b"])
        self.end("a")
        self.assertEqual(self.start(), [])
        self.end("b")
        self.assertEqual(self.start(), ["c"])
        self.end("c")
        self.assertEqual(self.start(), ["d"])

    def test_separates_steps_that_use_the_same_resource_and_lets_others_overtake(self):
        self.schedule(step("a", uses=("x", "y")), step("b", uses=("y",)), step("c", uses=("z",)))
        self.assertEqual(self.start(), ["a", "c"])
        self.end("c")
        self.assertEqual(self.start(), [])
        self.end("a")
        self.assertEqual(self.start(), ["b"])

    def test_runs_a_step_after_its_dependencies(self):
        self.schedule(step("a"), step("b"), step("c", after=("a", "b")), step("d"))
        self.assertEqual(self.start(), ["a", "b", "d"])
        self.end("a")
        self.assertEqual(self.start(), [])
        self.end("b")
        self.assertEqual(self.start(), ["c"])

    def test_does_not_run_dependents_of_a_failed_step_and_names_that_step(self):
        self.schedule(step("a"), step("b", after=("a",)), step("c", after=("b",)), step("d"))
        self.start()
        self.assertEqual(self.end("a", "no"), ["b", "c"])
        self.assertEqual(self.start(), [])
        self.end("d")
        self.assertTrue(self.scheduled.is_done)
        skipped = "not run: a failed"
        self.assertEqual(self.reasons(), {"a": "no", "b": skipped, "c": skipped, "d": None})
        self.assertEqual([outcome.began for outcome in self.scheduled.outcomes], [0.0, None, None, 0.0])

    def test_lets_a_yielding_step_wait_even_for_steps_that_fail(self):
        self.schedule(step("a"), step("b", yields_to=("a", "not selected")))
        self.assertEqual(self.start(), ["a"])
        self.assertEqual(self.end("a", "no"), [])
        self.assertEqual(self.start(), ["b"])

    def test_rejects_steps_that_come_before_their_dependencies(self):
        for steps in ([step("a", after=("b",)), step("b")], [step("a", after=("c",))], [step("a", yields_to=("a",))]):
            with self.assertRaisesRegex(ValueError, "must come before a"):
                self.schedule(*steps)


if __name__ == "__main__":
    unittest.main()
