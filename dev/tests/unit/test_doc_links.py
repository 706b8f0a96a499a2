"""Links in the README and the docs are valid, and every page can be reached."""

import os
import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import paths  # noqa: E402

INDEX = paths.ROOT / "docs" / "README.md"
PAGES = sorted([*paths.ROOT.glob("*.md"), *paths.ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def prose(page):
    """The page without code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page):
    """The relative links of a page: target, file and anchor."""
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            yield target, (page.parent / file).resolve() if file else page, anchor


def anchors(page):
    """The anchors of the headings, as GitHub generates them."""
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        number = 0
        while (slug if not number else f"{slug}-{number}") in found:
            number += 1
        found.add(slug if not number else f"{slug}-{number}")
    return found


class Links(unittest.TestCase):
    def test_all_point_to_existing_files_and_headings(self):
        broken = []
        for page in PAGES:
            for target, file, anchor in links(page):
                where = os.path.relpath(page, paths.ROOT)
                if not file.exists():
                    broken.append(f"{where}: {target}: no such file")
                elif anchor and anchor not in anchors(file):
                    broken.append(f"{where}: {target}: no such heading")
        self.assertEqual(broken, [])

    def test_lead_from_the_index_to_every_page(self):
        reached, ahead = set(), [INDEX]
        while ahead:
            page = ahead.pop()
            if page not in reached:
                reached.add(page)
                ahead.extend(file for _, file, _ in links(page) if file.suffix == ".md" and file.exists())
        lost = {page for page in PAGES if "decisions" not in page.parts and page not in reached}
        self.assertEqual([os.path.relpath(page, paths.ROOT) for page in sorted(lost)], [])

    def test_to_headings_are_computed_as_on_github(self):
        self.assertIn("two-commands", anchors(paths.ROOT / "README.md"))


if __name__ == "__main__":
    unittest.main()
