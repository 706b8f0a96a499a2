"""The chart accepts all values in the docs."""

import re
import tempfile
import unittest
from pathlib import Path

import chart_values
from chart_values import template
from ensign_dev import paths

BLOCK = re.compile(r"^( *)```yaml values\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
GUID = "00000000-0000-4000-8000-000000000001"


def shown():
    """Yields each block of values with its file and line."""
    for page in sorted([paths.ROOT / "README.md", *paths.ROOT.glob("docs/**/*.md")]):
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            body = re.sub(f"^{block[1]}", "", block[2], flags=re.MULTILINE).replace("<guid>", GUID)
            yield f"{page.relative_to(paths.ROOT)}:{line}", re.sub(r"<[a-z ]+>", "placeholder", body)


class ValuesOfTheDocs(unittest.TestCase):
    def test_render(self):
        program = chart_values.offline()
        blocks = list(shown())
        self.assertTrue(blocks, "no blocks found")
        for place, values in blocks:
            with self.subTest(place), tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(values)
                file.flush()
                answer = template(program, "--values", file.name)
                self.assertEqual(answer.status, 0, answer.error)

    def test_must_not_contain_typos(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("azure: {rateshare: 0.5}\n")
            file.flush()
            answer = template(chart_values.offline(), "--values", file.name)
            self.assertNotEqual(answer.status, 0)


if __name__ == "__main__":
    unittest.main()
