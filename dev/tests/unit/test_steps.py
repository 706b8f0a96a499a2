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

    def test_can_be_chosen_by_name_or_lane_in_their_usual_order(self):
        self.assertEqual(choose(self.STEPS), self.STEPS)
        self.assertEqual(names(choose(self.STEPS, ["e", "a"])), ["a", "e"])
        self.assertEqual(names(choose(self.STEPS, lanes=["unit"])), ["b", "e"])
        self.assertEqual(names(choose(self.STEPS, ["a"], ["unit"])), ["a", "b", "e"])

    def test_come_with_what_they_need(self):
        self.assertEqual(names(choose(self.STEPS, ["d"])), ["a", "c", "d"])
        self.assertEqual(names(choose(self.STEPS, lanes=["chart"])), ["a", "c"])

    def test_of_a_lane_can_be_left_out_but_for_what_others_need(self):
        self.assertEqual(names(choose(self.STEPS, without=["unit"])), ["a", "c", "d"])
        self.assertEqual(names(choose(self.STEPS, without=["lint", "demo"])), ["a", "b", "c", "e"])

    def test_that_do_not_exist_are_named_with_those_that_do(self):
        with self.assertRaisesRegex(ValueError, "no step is called x; there are: a, b, c, d, e"):
            choose(self.STEPS, ["x"])
        for chosen in ({"lanes": ["rust"]}, {"without": ["rust"]}):
            with self.assertRaisesRegex(ValueError, "no lane is called rust; there are: chart, demo, faults"):
                choose(self.STEPS, **chosen)

    def test_are_listed_by_lane_with_what_they_need(self):
        lines = listing(self.STEPS).splitlines()
        self.assertEqual([line.split(":")[0] for line in lines if not line.startswith(" ")], list(LANES))
        self.assertRegex(lines[-1], r"^  d +about d \(after c\)$")


class TheSummary(unittest.TestCase):
    def text(self, *outcomes):
        return summary([Outcome(step(f"s{number}", lane), *rest) for number, (lane, *rest) in enumerate(outcomes)])

    def test_counts_in_its_last_line(self):
        text = self.text(("lint", 0.0, 1.0, "no\nand more"), ("unit", 0.0, 1.0, None), ("unit", None, 0.0, "not run"))
        self.assertEqual(text.splitlines()[-2:], ["", "1 passed, 2 failed"])
        self.assertNotIn("and more", text)

    def test_has_the_time_of_each_step_and_lane(self):
        text = self.text(
            ("unit", 100.0, 20.0, None), ("lint", 90.0, 5.0, None), ("unit", 110.0, 30.0, None), ("unit", None, 0.0, "x"),
        )
        words = [" ".join(line.split()) for line in text.splitlines()]
        for line in ("pass unit s0 20 s", "FAIL unit s3 0.0 s x", "lint 5.0 s 5.0 s", "unit 50 s 40 s", "all 55 s 50 s"):
            self.assertIn(line, words)

    def test_of_a_lane_of_which_nothing_ran_has_no_time(self):
        self.assertIn("all 0.0 s 0.0 s", " ".join(self.text(("unit", None, 0.0, "not run")).split()))


class TheSuite(unittest.TestCase):
    def setUp(self):
        self.steps = Suite({}).steps()

    def test_has_steps_of_different_names_in_every_lane(self):
        self.assertEqual(len(set(names(self.steps))), len(self.steps))
        self.assertEqual({one.lane for one in self.steps}, set(LANES))

    def test_can_be_run_in_its_order(self):
        Schedule(self.steps, 1)

    def test_never_has_two_commands_in_cargos_build_folder(self):
        for one in self.steps:
            if one.name in ("compile", "clippy", "docs", "doc-tests", "control-plane"):
                self.assertIn("cargo", one.uses, one.name)
            if one.lane == "demo":  # `make demo` calls cargo by itself
                self.assertLessEqual({"compile", "clippy", "docs", "doc-tests"}, set(one.yields_to), one.name)

    def test_takes_turns_on_a_cluster_that_the_caller_chose(self):
        for chosen, shared in (({}, 0), ({"ENSIGN_TEST_KUBECONFIG": "/chosen"}, 3)):
            by_name = {one.name: one for one in Suite(chosen).steps()}
            found = [name for name in ("integration", "cluster-wide", "scale") if "cluster" in by_name[name].uses]
            self.assertEqual(len(found), shared)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class ProgressLines(unittest.TestCase):
    def test_a_log_file_gets_no_line_per_update_and_no_control_characters(self):
        out = io.StringIO()
        progress = Progress(out)
        for number in range(100):
            progress.update(f"{number} of 100")
        progress.say("done")
        self.assertEqual(out.getvalue(), "done\n")

    def test_a_terminal_gets_one_line_that_is_rewritten(self):
        out = Terminal()
        progress = Progress(out)
        progress.update("1 of 2")
        progress.update("2 of 2")
        progress.say("done")
        self.assertEqual(out.getvalue(), "\r\x1b[K1 of 2\r\x1b[K2 of 2\r\x1b[Kdone\n")

    def test_durations_are_read_at_a_glance(self):
        for seconds, expected in ((0.04, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (60, "1 min 0 s"), (425, "7 min 5 s")):
            self.assertEqual(duration(seconds), expected)

    def test_programs_write_where_their_step_does(self):
        file = io.StringIO()
        self.assertIs(Output(file).options()["stdout"], file)
        self.assertEqual(Output().options(), {})


if __name__ == "__main__":
    unittest.main()
