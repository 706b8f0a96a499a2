import io
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.output import Output  # noqa: E402
from ensign_dev.progress import Progress, duration  # noqa: E402
from ensign_dev.schedule import Schedule  # noqa: E402
from ensign_dev.steps import LANES, Outcome, Step, choose, listing, summary  # noqa: E402
from ensign_dev.suite import Suite  # noqa: E402


def step(name, lane="unit", after=()):
    return Step(name, lane, f"about {name}", lambda out: None, tuple(after))


def names(steps):
    return [one.name for one in steps]


class Steps(unittest.TestCase):
    STEPS = [step("a", "lint"), step("b"), step("c", "chart", ["a"]), step("d", "demo", ["c"]), step("e")]

    def test_can_be_selected_by_name_or_lane_and_keep_their_order(self):
        self.assertEqual(choose(self.STEPS), self.STEPS)
        self.assertEqual(names(choose(self.STEPS, ["e", "a"])), ["a", "e"])
        self.assertEqual(names(choose(self.STEPS, lanes=["unit"])), ["b", "e"])
        self.assertEqual(names(choose(self.STEPS, ["a"], ["unit"])), ["a", "b", "e"])

    def test_are_selected_with_their_dependencies(self):
        self.assertEqual(names(choose(self.STEPS, ["d"])), ["a", "c", "d"])
        self.assertEqual(names(choose(self.STEPS, lanes=["chart"])), ["a", "c"])

    def test_of_a_lane_can_be_skipped_except_for_dependencies(self):
        self.assertEqual(names(choose(self.STEPS, without=["unit"])), ["a", "c", "d"])
        self.assertEqual(names(choose(self.STEPS, without=["lint", "demo"])), ["a", "b", "c", "e"])

    def test_that_are_unknown_are_rejected_with_the_known_names(self):
        with self.assertRaisesRegex(ValueError, "unknown step x; known: a, b, c, d, e"):
            choose(self.STEPS, ["x"])
        for chosen in ({"lanes": ["rust"]}, {"without": ["rust"]}):
            with self.assertRaisesRegex(ValueError, "unknown lane rust; known: az, chart, demo, faults"):
                choose(self.STEPS, **chosen)

    def test_are_listed_by_lane_with_their_dependencies(self):
        lines = listing(self.STEPS).splitlines()
        self.assertEqual([line.split(":")[0] for line in lines if not line.startswith(" ")], list(LANES))
        self.assertRegex(lines[-1], r"^  d +about d \(after c\)$")


class TheSummary(unittest.TestCase):
    def text(self, *outcomes):
        return summary([Outcome(step(f"s{number}", lane), *rest) for number, (lane, *rest) in enumerate(outcomes)])

    def test_ends_with_the_totals(self):
        text = self.text(("lint", 0.0, 1.0, "no\nand more"), ("unit", 0.0, 1.0, None), ("unit", None, 0.0, "not run"))
        self.assertEqual(text.splitlines()[-2:], ["", "1 passed, 2 failed"])
        self.assertNotIn("and more", text)

    def test_contains_the_time_of_each_step_and_lane(self):
        text = self.text(
            ("unit", 100.0, 20.0, None), ("lint", 90.0, 5.0, None), ("unit", 110.0, 30.0, None), ("unit", None, 0.0, "x"),
        )
        words = [" ".join(line.split()) for line in text.splitlines()]
        for line in ("pass unit s0 20 s", "FAIL unit s3 0.0 s x", "lint 5.0 s 5.0 s", "unit 50 s 40 s", "all 55 s 50 s"):
            self.assertIn(line, words)

    def test_shows_no_time_if_nothing_ran(self):
        self.assertIn("all 0.0 s 0.0 s", " ".join(self.text(("unit", None, 0.0, "not run")).split()))


class TheSuite(unittest.TestCase):
    def setUp(self):
        self.steps = Suite({}).steps()

    def test_has_uniquely_named_steps_in_every_lane(self):
        self.assertEqual(len(set(names(self.steps))), len(self.steps))
        self.assertEqual({one.lane for one in self.steps}, set(LANES))

    def test_has_a_valid_order(self):
        Schedule(self.steps, 1)

    def test_never_runs_two_commands_in_cargos_build_folder(self):
        for one in self.steps:
            if one.name in ("compile", "clippy", "docs", "doc-tests", "control-plane"):
                self.assertIn("cargo", one.uses, one.name)
            if one.lane == "demo":  # `make demo` runs cargo itself
                self.assertLessEqual({"compile", "clippy", "docs", "doc-tests"}, set(one.yields_to), one.name)

    def test_does_not_run_concurrent_tests_on_a_cluster_that_the_caller_chose(self):
        for chosen, shared in (({}, 0), ({"ENSIGN_TEST_KUBECONFIG": "/chosen"}, 3)):
            by_name = {one.name: one for one in Suite(chosen).steps()}
            found = [name for name in ("integration", "cluster-wide", "scale") if "cluster" in by_name[name].uses]
            self.assertEqual(len(found), shared)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class ProgressLines(unittest.TestCase):
    def test_are_rare_and_free_of_control_characters_in_a_log_file(self):
        out = io.StringIO()
        progress = Progress(out)
        for number in range(100):
            progress.update(f"{number} of 100")
        progress.say("done")
        self.assertEqual(out.getvalue(), "done\n")

    def test_are_rewritten_in_place_on_a_terminal(self):
        out = Terminal()
        progress = Progress(out)
        progress.update("1 of 2")
        progress.update("2 of 2")
        progress.say("done")
        self.assertEqual(out.getvalue(), "\r\x1b[K1 of 2\r\x1b[K2 of 2\r\x1b[Kdone\n")

    def test_have_readable_durations(self):
        for seconds, expected in ((0.04, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (60, "1 min 0 s"), (425, "7 min 5 s")):
            self.assertEqual(duration(seconds), expected)

    def test_of_programs_go_to_the_log_of_their_step(self):
        file = io.StringIO()
        self.assertIs(Output(file).options()["stdout"], file)
        self.assertEqual(Output().options(), {})


if __name__ == "__main__":
    unittest.main()
