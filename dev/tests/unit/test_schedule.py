"""Which steps run side by side, and what becomes of those that need one that failed."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.schedule import Schedule  # noqa: E402
from ensign_dev.steps import BUSY, Outcome, Step  # noqa: E402


def step(name, **fields):
    return Step(name, "unit", "about", lambda out: None, **fields)


class ASchedule(unittest.TestCase):
    def schedule(self, *steps, room=3):
        self.made = Schedule(steps, room)
        return self.made

    def start(self):
        """Starts what can start; the names."""
        names = []
        while True:
            started = self.made.start()
            if started is None:
                return names
            names.append(started.name)

    def end(self, name, reason=None):
        """Ends a step; the names of those that are lost with it."""
        running = next(one for one in self.made.running if one.name == name)
        return [lost.step.name for lost in self.made.end(Outcome(running, 0.0, 1.0, reason))]

    def reasons(self):
        return {outcome.step.name: outcome.reason for outcome in self.made.outcomes}

    def test_starts_as_many_as_there_is_room_for_in_their_order(self):
        self.schedule(*map(step, "abcd"))
        self.assertEqual(self.start(), ["a", "b", "c"])
        self.end("b")
        self.assertEqual(self.start(), ["d"])

    def test_with_room_for_one_is_a_sequence(self):
        self.schedule(step("a"), step("b", weight=BUSY), step("c", alone=True), step("d", after=("b",)), room=1)
        order = []
        while not self.made.is_done:
            (name,) = self.start()
            order.append(name)
            self.end(name)
        self.assertEqual(order, ["a", "b", "c", "d"])

    def test_weighs_a_busy_step_double(self):
        self.schedule(step("a", weight=BUSY), step("b", weight=BUSY), step("c"))
        self.assertEqual(self.start(), ["a"])
        self.end("a")
        self.assertEqual(self.start(), ["b", "c"])

    def test_lets_nothing_overtake_a_step_that_waits_for_room(self):
        self.schedule(step("a"), step("b"), step("c", alone=True), step("d"))
        self.assertEqual(self.start(), ["a", "b"])
        self.end("a")
        self.assertEqual(self.start(), [])
        self.end("b")
        self.assertEqual(self.start(), ["c"])
        self.end("c")
        self.assertEqual(self.start(), ["d"])

    def test_keeps_apart_steps_that_use_the_same_and_lets_others_overtake(self):
        self.schedule(step("a", uses=("x", "y")), step("b", uses=("y",)), step("c", uses=("z",)))
        self.assertEqual(self.start(), ["a", "c"])
        self.end("c")
        self.assertEqual(self.start(), [])
        self.end("a")
        self.assertEqual(self.start(), ["b"])

    def test_runs_a_step_after_what_it_needs(self):
        self.schedule(step("a"), step("b"), step("c", after=("a", "b")), step("d"))
        self.assertEqual(self.start(), ["a", "b", "d"])
        self.end("a")
        self.assertEqual(self.start(), [])
        self.end("b")
        self.assertEqual(self.start(), ["c"])

    def test_does_not_run_what_needs_a_step_that_failed_and_names_that_step(self):
        self.schedule(step("a"), step("b", after=("a",)), step("c", after=("b",)), step("d"))
        self.start()
        self.assertEqual(self.end("a", "no"), ["b", "c"])
        self.assertEqual(self.start(), [])
        self.end("d")
        self.assertTrue(self.made.is_done)
        lost = "not run: a failed"
        self.assertEqual(self.reasons(), {"a": "no", "b": lost, "c": lost, "d": None})
        self.assertEqual([outcome.began for outcome in self.made.outcomes], [0.0, None, None, 0.0])

    def test_lets_a_step_that_yields_wait_for_others_whatever_becomes_of_them(self):
        self.schedule(step("a"), step("b", yields_to=("a", "left out")))
        self.assertEqual(self.start(), ["a"])
        self.assertEqual(self.end("a", "no"), [])
        self.assertEqual(self.start(), ["b"])

    def test_refuses_an_order_in_which_a_step_stands_before_what_it_needs(self):
        for steps in ([step("a", after=("b",)), step("b")], [step("a", after=("c",))], [step("a", yields_to=("a",))]):
            with self.assertRaisesRegex(ValueError, "must stand before a"):
                self.schedule(*steps)


if __name__ == "__main__":
    unittest.main()
