import io
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.progress import Progress, duration  # noqa: E402
from ensign_dev.steps import Step, StepFailed, choose, run_all, summary  # noqa: E402
from ensign_dev.suite import Suite  # noqa: E402


def fails(error):
    def run():
        raise error

    return run


class Steps(unittest.TestCase):
    def run_steps(self, *runs):
        self.out = io.StringIO()
        return run_all([Step(f"step-{number}", "about", run) for number, run in enumerate(runs)], self.out)

    def test_all_run_even_after_a_failure(self):
        ran = []
        outcomes = self.run_steps(fails(StepFailed("no")), fails(ValueError("bug")), lambda: ran.append(True))
        self.assertEqual(ran, [True])
        self.assertEqual([outcome.reason for outcome in outcomes], ["no", "ValueError: bug", None])
        self.assertIn("step-0 FAILED: no", self.out.getvalue())

    def test_are_counted_in_the_last_line(self):
        outcomes = self.run_steps(fails(StepFailed("no\nand more")), lambda: None, lambda: None)
        text = summary(outcomes)
        self.assertEqual(text.splitlines()[-1], "2 passed, 1 failed")
        self.assertNotIn("and more", text)

    def test_are_interrupted_by_ctrl_c(self):
        with self.assertRaises(KeyboardInterrupt):
            self.run_steps(fails(KeyboardInterrupt()), lambda: None)

    def test_can_be_chosen_by_name_in_their_usual_order(self):
        steps = [Step(name, "", lambda: None) for name in ("a", "b", "c")]
        self.assertEqual([step.name for step in choose(steps, ["c", "a"])], ["a", "c"])
        self.assertEqual(choose(steps, []), steps)
        with self.assertRaisesRegex(ValueError, "called d; there are: a, b, c"):
            choose(steps, ["d"])

    def test_of_the_suite_have_different_names(self):
        names = [step.name for step in Suite().steps()]
        self.assertEqual(len(set(names)), len(names))


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


if __name__ == "__main__":
    unittest.main()
