"""Running steps: one at a time, or in parallel with log files."""

import io
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import children, runner  # noqa: E402
from ensign_dev.runner import SideBySide, run_all  # noqa: E402
from ensign_dev.steps import Step, StepFailed, summary  # noqa: E402
from ensign_dev.waiting import until  # noqa: E402

SECONDS = 30


def passes(out):
    out.say("fine")


def fails(error):
    def run(out):
        out.say("before the end")
        raise error

    return run


class RunnerTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.logs = Path(folder.name) / "test-logs"
        self.out = io.StringIO()

    def run_steps(self, *runs, jobs, after=()):
        """Runs steps `step-0`, `step-1` and so on; `after` contains pairs of a step and its dependency, as numbers."""
        steps = [
            Step(f"step-{number}", "unit", "about", run, tuple(f"step-{need}" for step, need in after if step == number))
            for number, run in enumerate(runs)
        ]
        with mock.patch("sys.stdout", self.out):
            return run_all(steps, jobs, self.logs, self.out)


class OneByOne(RunnerTest):
    def test_all_steps_run_even_after_a_failure(self):
        outcomes = self.run_steps(fails(StepFailed("no")), fails(ValueError("bug")), passes, jobs=1)
        self.assertEqual([outcome.reason for outcome in outcomes], ["no", "ValueError: bug", None])
        self.assertIn("<== step-0 FAILED: no", self.out.getvalue())

    def test_output_goes_to_the_terminal_between_the_lines_of_its_step(self):
        self.run_steps(passes, fails(StepFailed("no")), jobs=1)
        text = self.out.getvalue()
        self.assertRegex(text, r"==> \[1/2\] step-0 \(unit\): about\nfine\n<== step-0 passed \(0\.0 s\)\n\n==> \[2/2\]")
        self.assertFalse(self.logs.exists())

    def test_dependents_of_a_failed_step_are_not_run_and_count_as_failed(self):
        outcomes = self.run_steps(fails(StepFailed("no")), passes, passes, jobs=1, after=[(1, 0)])
        self.assertEqual([outcome.reason for outcome in outcomes], ["no", "not run: step-0 failed", None])
        self.assertIn("<== step-1 FAILED: not run: step-0 failed", self.out.getvalue())
        self.assertEqual(summary(outcomes).splitlines()[-1], "1 passed, 2 failed")

    def test_ctrl_c_ends_the_run(self):
        with self.assertRaises(KeyboardInterrupt):
            self.run_steps(fails(KeyboardInterrupt()), passes, jobs=1)


class InParallel(RunnerTest):
    def test_steps_run_concurrently(self):
        meeting = threading.Barrier(3, timeout=SECONDS)
        outcomes = self.run_steps(*[lambda out: meeting.wait()] * 3, jobs=3)
        self.assertEqual([outcome.reason for outcome in outcomes], [None] * 3)

    def test_output_goes_to_a_file_and_is_shown_after_a_failure(self):
        def program(out):
            out.say("first")
            children.run(["sh", "-c", "echo out; echo err >&2; exit 1"], Path("/"), SECONDS, **out.options())
            raise StepFailed("no")

        outcomes = self.run_steps(program, passes, jobs=2)
        self.assertEqual([outcome.reason for outcome in outcomes], ["no", None])
        self.assertEqual((self.logs / "step-0.log").read_text(), "first\nout\nerr\n")
        self.assertEqual((self.logs / "step-1.log").read_text(), "fine\n")
        log = self.logs / "step-0.log"
        self.assertIn(f"\n--- {log}\nfirst\nout\nerr\n---\n<== step-0 FAILED: no", self.out.getvalue())
        self.assertNotIn("fine", self.out.getvalue())

    def test_only_the_end_of_a_long_output_is_shown(self):
        def run(out):
            for number in range(runner.SHOWN_LINES + 1):
                out.say(f"line {number}")
            raise StepFailed("no")

        self.run_steps(run, passes, jobs=2)
        text = self.out.getvalue()
        self.assertIn(f"step-0.log, last {runner.SHOWN_LINES} lines\nline 1\n", text)
        self.assertNotIn("line 0\n", text)

    def test_the_stack_trace_of_a_bug_in_a_step_is_logged(self):
        outcomes = self.run_steps(fails(ValueError("bug")), passes, jobs=2)
        self.assertEqual(outcomes[0].reason, "ValueError: bug")
        self.assertIn("Traceback", (self.logs / "step-0.log").read_text())

    def test_outcomes_are_in_the_order_of_the_steps(self):
        def last(_out):
            until("the other step to finish", lambda: "<== step-1" in self.out.getvalue() or None, SECONDS)

        outcomes = self.run_steps(last, passes, jobs=2)
        self.assertEqual([(one.step.name, one.reason) for one in outcomes], [("step-0", None), ("step-1", None)])

    def test_log_files_of_an_earlier_run_are_deleted(self):
        self.logs.mkdir()
        (self.logs / "old.log").write_text("old")
        self.run_steps(passes, passes, jobs=2)
        self.assertEqual(sorted(file.name for file in self.logs.iterdir()), ["step-0.log", "step-1.log"])

    def test_running_steps_are_printed_periodically_with_the_progress_of_a_single_one(self):
        seen = threading.Event()

        class Stream(io.StringIO):
            def write(self, text):
                if text.startswith("..."):
                    seen.set()
                return super().write(text)

        def run(out):
            out.say("530 of 900 packages")
            self.assertTrue(seen.wait(SECONDS))

        stream = Stream()
        SideBySide([Step("long", "unit", "about", run)], 2, stream, self.logs, heartbeat_seconds=0.05).all()
        self.assertRegex(stream.getvalue(), r"\n\.\.\. [\d.]+ s: long [\d.]+ s( \| 530 of 900 packages)?\n")

    def test_ctrl_c_terminates_running_programs_and_those_started_afterwards(self):
        started, begun = [], threading.Event()

        def run(out):
            for _ in range(2):
                started.append(children.start(["sleep", "600"]))
                begun.set()
                started[-1].wait()

        class Interrupted(SideBySide):
            def _await(self):
                begun.wait(SECONDS)
                raise KeyboardInterrupt

        steps = [Step("a", "unit", "about", run), Step("b", "unit", "about", passes)]
        with self.assertRaises(KeyboardInterrupt):
            Interrupted(steps, 2, self.out, self.logs).all()
        self.assertEqual(len(started), 2)
        for process in started:
            self.assertIsNotNone(process.poll())


class EndingAll(unittest.TestCase):
    def test_terminates_running_processes(self):
        process = children.start(["sleep", "600"], stdout=subprocess.DEVNULL)
        children.end_all()
        self.assertIsNotNone(process.poll())


if __name__ == "__main__":
    unittest.main()
