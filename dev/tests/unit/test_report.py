"""The demo's report is ok only if every step passed, and contains no tokens."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.demo_steps import PLAN, Demo  # noqa: E402
from ensign_dev.report import Report  # noqa: E402


def run_steps(report, *names):
    for name in names:
        with report.step(name):
            pass
    return report


class TheReport(unittest.TestCase):
    def test_has_the_documented_format(self):
        report = Report(["one"])
        report.build_seconds = 1.5
        with report.step("one") as detail:
            detail["what"] = "found"
        whole = json.loads(report.as_json())
        self.assertEqual(list(whole), ["ok", "mode", "build_seconds", "steps"])
        self.assertEqual((whole["ok"], whole["mode"], whole["build_seconds"]), (True, "webhook", 1.5))
        [step] = whole["steps"]
        self.assertEqual(list(step), ["name", "ok", "seconds", "detail"])
        self.assertEqual((step["name"], step["ok"], step["detail"]), ("one", True, {"what": "found"}))

    def test_is_not_ok_before_the_last_step(self):
        self.assertFalse(Report(["one"]).ok)
        self.assertFalse(run_steps(Report(["one", "two"]), "one").ok)
        self.assertTrue(run_steps(Report(["one", "two"]), "one", "two").ok)

    def test_contains_the_error_and_the_details_of_a_failed_step(self):
        report = Report(["one", "two"])
        with self.assertRaises(ValueError):
            with report.step("one") as detail:
                detail["known"] = 1
                raise ValueError("no such thing")
        self.assertFalse(report.ok)
        self.assertEqual(report.steps[0]["detail"], {"known": 1, "error": "no such thing"})

    def test_counts_an_interrupted_step_as_failed(self):
        report = Report(["one"])
        with self.assertRaises(KeyboardInterrupt):
            with report.step("one"):
                raise KeyboardInterrupt
        self.assertFalse(report.ok)
        self.assertEqual(report.steps[0]["detail"], {"error": "interrupted"})

    def test_rejects_unplanned_steps(self):
        with self.assertRaises(KeyError):
            run_steps(Report(["one"]), "two")

    def test_never_contains_tokens(self):
        token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwcyJ9.c2lnbmF0dXJl"
        report = Report(["one"])
        with report.step("one") as detail:
            detail["error"] = f"invalid assertion '{token}'"
        self.assertNotIn("eyJ", report.as_json())
        self.assertIn("invalid assertion '[token removed]'", report.as_json())

    def test_is_written_atomically(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "demo" / "report.json"
            run_steps(Report(["one"]), "one").write(file)
            self.assertTrue(json.loads(file.read_text())["ok"])
            self.assertEqual([one.name for one in file.parent.iterdir()], ["report.json"])


class ThePlan(unittest.TestCase):
    def test_has_a_heading_and_a_method_for_every_step(self):
        for name, (heading, method) in PLAN.items():
            with self.subTest(name):
                self.assertTrue(heading)
                self.assertTrue(callable(getattr(Demo, method)))


if __name__ == "__main__":
    unittest.main()
