"""Benchmark figures, reports and plots."""

import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import paths  # noqa: E402
from ensign_dev.bench import admission, api_server, container, machine, parts, report, svg  # noqa: E402
from ensign_dev.bench.figures import Figure, Limit, Part, Plot, Series, Target, at_least, at_most  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402

MACHINE = {
    "cpu": "Any CPU", "cores": 2, "memory_mib": 4096, "kernel": "Linux 6", "rustc": "rustc 1.90",
    "kubernetes": "v1.37.0", "load_at_start": 0.1, "date": "2026-01-01",
}
PLOT = Plot("latency.svg", "Latency & more", "size, KiB", "ms", [Series("webhook", [(1, 2.0), (10, 4.0)])])


def figure(**more):
    return Figure("throughput", "reviews/s", [10.0, 30.0, 20.0], **more)


class Figures(unittest.TestCase):
    def test_have_the_median_of_their_runs_and_its_ratio_to_the_median_of_the_limit(self):
        one = figure(limit=Limit("echo", [50.0, 10.0, 40.0]))
        self.assertEqual((one.median, one.ratio), (20.0, 0.5))
        self.assertIsNone(figure().ratio)

    def test_need_at_least_one_run(self):
        with self.assertRaises(ValueError):
            Figure("nothing", "s", [])
        with self.assertRaises(ValueError):
            figure(limit=Limit("echo", []))

    def test_meet_their_target_with_their_median(self):
        self.assertTrue(at_least([1, 5, 9], 5, "≥ 5").met)
        self.assertFalse(at_least([1, 4, 9], 5, "≥ 5").met)
        self.assertTrue(at_most([1, 5, 9], 5, "≤ 5").met)
        self.assertFalse(at_most([1, 6, 9], 5, "≤ 5").met)


class TheReport(unittest.TestCase):
    def test_contains_every_run_and_the_names_of_the_plots(self):
        one = figure(limit=Limit("echo", [40.0]), target=Target("≥ 0.5", True))
        part = Part("admission", [one], [PLOT], ["a note"])
        with tempfile.TemporaryDirectory() as folder:
            report.write(Path(folder), MACHINE, 3, [part])
            whole = json.loads((Path(folder) / "report.json").read_text())
            self.assertTrue((Path(folder) / "latency.svg").is_file())
        [found] = whole["parts"]
        self.assertEqual(found["figures"][0]["runs"], [10.0, 30.0, 20.0])
        self.assertEqual(found["figures"][0]["ratio"], 0.5)
        self.assertEqual((found["plots"], found["notes"]), (["latency.svg"], ["a note"]))
        self.assertEqual((whole["machine"], whole["runs"]), (MACHINE, 3))

    def test_shows_in_each_row_whether_the_target_was_met(self):
        for met, verdict in ((True, "≥ 0.5: met"), (False, "≥ 0.5: NOT met"), (None, "≥ 0.5: not measured")):
            self.assertEqual(report.row(figure(target=Target("≥ 0.5", met)))[-1], verdict)
        self.assertEqual(
            report.row(figure(limit=Limit("echo", [40.0]))),
            ["throughput", "20 reviews/s", "10 – 30", "echo: 40", "0.50", ""],
        )

    def test_replaces_only_its_generated_section(self):
        document = "\n".join(["before", report.begin("a"), "old", report.end("a"), "after"])
        once = report.insert(document, "a", "new")
        self.assertEqual(once, "\n".join(["before", report.begin("a"), "new", report.end("a"), "after"]))
        self.assertEqual(report.insert(once, "a", "new"), once)
        with self.assertRaises(Failure):
            report.insert(document, "b", "new")

    def test_has_a_section_in_the_documentation_for_every_part(self):
        document = (Path(__file__).resolve().parents[3] / "docs" / "performance.md").read_text()
        for entry in parts.registry():
            report.insert(document, entry.name, "")

    def test_contains_every_figure_and_note(self):
        part = Part("admission", [figure()], [PLOT], ["a note"])
        for text in (report.table(part), report.markdown(part, MACHINE, 3, "performance")):
            self.assertIn("20 reviews/s", text)
            self.assertIn("a note", text)
        self.assertIn("](performance/latency.svg)", report.markdown(part, MACHINE, 3, "performance"))


class TheParts(unittest.TestCase):
    ENTRIES = [parts.Entry("a", lambda _: Part("a", [])), parts.Entry("soak", lambda _: Part("soak", []), "driver", True)]

    def test_run_by_default_unless_they_have_to_be_requested(self):
        self.assertEqual([entry.name for entry in parts.chosen([], self.ENTRIES)], ["a"])
        self.assertEqual([entry.name for entry in parts.chosen(["soak"], self.ENTRIES)], ["soak"])

    def test_need_only_their_own_drivers(self):
        self.assertEqual(parts.drivers(parts.chosen(["a"], self.ENTRIES)), ())
        self.assertEqual(parts.drivers(parts.chosen(["a", "soak"], self.ENTRIES)), ("driver",))
        for entry in parts.registry():
            self.assertTrue(entry.driver is None or (paths.ROOT / "benches" / entry.driver / "main.rs").is_file(), entry)

    def test_must_have_known_names(self):
        with self.assertRaisesRegex(Failure, "unknown part b"):
            parts.chosen(["a", "b"], self.ENTRIES)


class ThePlots(unittest.TestCase):
    def test_are_well_formed_with_labels_and_legend(self):
        plot = Plot("a.svg", "T <1>", "x & y", "ms", [Series("one", [(1, 1)]), Series("two", [(9, 5)], dashed=True)])
        for log in (False, True):
            document = svg.render(Plot(plot.file, plot.title, plot.x_label, plot.y_label, plot.series, log, log))
            texts = [element.text for element in xml.etree.ElementTree.fromstring(document).iter() if element.text]
            for wanted in ("T <1>", "x & y", "ms", "one", "two"):
                self.assertIn(wanted, texts)

    def test_have_ticks_that_cover_all_values(self):
        linear, logarithmic = ([3.0, 97.0], [0.0], [-3.0, 2.0]), ([0.02, 5.0], [7.0])
        for values, is_log in [*((one, False) for one in linear), *((one, True) for one in logarithmic)]:
            axis = svg.Axis(values, is_log, 0.0, 100.0)
            for value in values:
                self.assertGreaterEqual(axis.place(value), -1e-9)
                self.assertLessEqual(axis.place(value), 100 + 1e-9)

    def test_have_no_longer_logarithmic_axes_than_needed(self):
        ticks = [svg.Axis(values, True, 0.0, 1.0).ticks for values in ([1_000.0, 16_000.0], [0.01, 900.0], [7.0])]
        self.assertEqual(ticks[0], [1_000, 2_000, 5_000, 10_000, 20_000])
        self.assertEqual([round(tick, 6) for tick in ticks[1]], [0.01, 0.1, 1, 10, 100, 1_000])
        self.assertEqual(ticks[2], [5, 10])

    def test_have_linear_axes_that_start_at_zero(self):
        self.assertEqual(svg.Axis([3.0, 97.0], False, 0.0, 100.0).ticks, [0, 20, 40, 60, 80, 100])

    def test_reject_missing_values_and_zeros_on_a_logarithmic_axis(self):
        for values in ([], [0.0, 1.0]):
            with self.assertRaises(ValueError):
                svg.Axis(values, True, 0.0, 1.0)

    def test_have_short_numbers(self):
        numbers = [svg.number(value) for value in (0, 0.1234, 12, 12.5, 12345.6)]
        self.assertEqual(numbers, ["0", "0.123", "12", "12.5", "12,346"])


class TheApiServer(unittest.TestCase):
    def test_compares_each_mode_with_pods_that_were_not_injected_in_the_same_runs(self):
        part = api_server.part({"webhook": [([0.001, 0.001], [0.002, 0.002]), ([0.003], [0.003]), ([0.001], [0.004])]})
        self.assertEqual([figure.ratio for figure in part.figures], [3.0, 3.0])

    def test_computes_p99(self):
        self.assertEqual(api_server.p99([float(n) for n in range(1, 101)]), 99)
        self.assertEqual(api_server.p99([5.0]), 5)


class Admission(unittest.TestCase):
    def test_must_meet_both_halves_of_the_throughput_target(self):
        for rate, floor, met in ((25_000.0, 40_000.0, True), (25_000.0, 60_000.0, False), (15_000.0, 20_000.0, False)):
            self.assertIs(admission.throughput_target([rate], [floor]).met, met)

    def test_rejects_results_with_errors(self):
        self.assertEqual(admission.good({"errors": 0}), {"errors": 0})
        with self.assertRaisesRegex(Failure, "late"):
            admission.good({"errors": 1, "first_error": "late"})


class AContainer(unittest.TestCase):
    """Uses a folder that looks like /sys/fs/cgroup."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.own = self.root / "own"

    def written(self, group):
        """Returns and deletes what was written to a group, because the kernel's files disappear with their group."""
        files = {file.name: file.read_text() for file in group.iterdir()}
        for file in group.iterdir():
            file.unlink()
        return files

    def test_uses_child_groups_in_version_1_and_removes_them(self):
        cpu, memory = self.root / "cpu,cpuacct" / "job", self.root / "memory" / "x"
        for folder in (cpu, memory):
            folder.mkdir(parents=True)
        self.own.write_text("4:memory:/x\n1:cpu,cpuacct:/job\n0::/\n")
        with container.container(30, self.root, self.own) as found:
            with found.quota(42, 0.1):
                written = self.written(cpu / container.GROUP)
            self.assertEqual(self.written(memory / container.GROUP), {"memory.limit_in_bytes": "31457280"})
        self.assertEqual(written, {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "10000", "cgroup.procs": "42"})
        self.assertEqual([(folder / container.GROUP).exists() for folder in (cpu, memory)], [False, False])
        self.assertEqual((cpu / "cgroup.procs").read_text(), "42")

    def test_sets_both_limits_in_one_group_in_version_2(self):
        (self.root / "job").mkdir()
        (self.root / "job" / "cgroup.controllers").write_text("cpu memory")
        self.own.write_text("0::/job\n")
        with container.container(1, self.root, self.own) as found:
            with found.quota(42, 0.5):
                self.assertEqual(self.written(found.group), {"memory.max": "1048576", "cpu.max": "50000 100000"})

    def test_needs_the_memory_controller(self):
        self.own.write_text("0::/job\n")
        with self.assertRaises(container.NoLimit):
            with container.container(30, self.root, self.own):
                self.fail("a group was created")

    def test_runs_a_copy_of_a_program_that_was_made_inside_the_group(self):
        (self.root / "job").mkdir()
        (self.root / "job" / "cgroup.controllers").write_text("memory")
        self.own.write_text("0::/job\n")
        with container.container(1, self.root, self.own) as found:
            script = self.root / "start"
            script.write_text(found.script(Path("/bin/echo"), self.root / "a copy"))
            said = subprocess.run(["sh", script, "it", "runs"], stdout=subprocess.PIPE, check=True, timeout=30)
            self.assertEqual(said.stdout, b"it runs\n")
            self.assertTrue((self.root / "a copy").exists())
            self.assertTrue(self.written(found.group)["cgroup.procs"].strip().isdigit())

    def test_reads_the_kernels_counters(self):
        for is_v2, files in (
            (True, {"memory.events": "oom 2\noom_kill 1\n", "memory.stat": "anon 5\nfile 7\n"}),
            (False, {"memory.oom_control": "under_oom 0\noom_kill 1\n", "memory.stat": "cache 7\nrss 5\nrss_huge 0\n"}),
        ):
            for name, text in files.items():
                (self.root / name).write_text(text)
            found = container.Container(self.root, is_v2, self.root, self.own)
            self.assertEqual((found.kills(), found.kept()), (1, 5))
        (self.root / "memory.stat").unlink()
        with self.assertRaises(Failure):
            found.kept()


class TheMachine(unittest.TestCase):
    def test_is_read_from_proc(self):
        self.assertEqual(machine.cpu_model("processor : 0\nmodel name\t: Any CPU\n"), "Any CPU")
        self.assertEqual(machine.memory_mib("MemTotal:  2097152 kB\nMemFree: 1 kB\n"), 2048)

    def test_is_described_in_one_line(self):
        self.assertIn("2 cores, 4 GiB", machine.as_text(MACHINE))


if __name__ == "__main__":
    unittest.main()
