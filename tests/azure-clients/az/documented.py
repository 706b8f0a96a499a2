"""Every `az` command in the docs, in the chart, and in what the program prints."""

import dataclasses
import pathlib
import re
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[3]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(az [^`]+)`")
# A string of Rust, and `az` with its group and command where it starts a command.
RUST_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
COMMAND = re.compile(r"(?:^|(?<=[`(\s]))az [a-z][a-z-]*(?: [a-z][a-z-]*)*(?: [^`\n]*)?")
WORDS = re.compile(r"az((?: [a-z][a-z-]*)+)")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, as it is written there."""

    where: str
    text: str

    @property
    def path(self):
        """Group and command, such as `identity show`."""
        return WORDS.match(self.text).group(1).strip()

    @property
    def is_mention(self):
        """Whether it only names a command, or leaves something out."""
        return "…" in self.text or self.text.strip() == f"az {self.path}"


def everywhere():
    """All commands, in the order of files and lines."""
    found = []
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        found += in_markdown(page)
    found += in_text(ROOT / "charts" / "ensign" / "templates" / "NOTES.txt")
    for folder in ("crates/core/src", "crates/azure/src", "src"):
        for file in sorted((ROOT / folder).rglob("*.rs")):
            if not file.name.endswith("tests.rs"):
                found += in_rust(file)
    return found


def in_markdown(page):
    text = page.read_text()
    found = []
    for block in FENCE.finditer(text):
        found += in_shell(page, textwrap.dedent(block.group(3)))
    prose = FENCE.sub("", text)
    # A command in prose may be broken over two lines.
    found += [Command(_name(page), " ".join(inline.group(1).split())) for inline in INLINE.finditer(prose)]
    return found


def in_text(file):
    return in_shell(file, file.read_text())


def in_shell(file, text):
    """The commands of a shell script or a transcript, and those within them."""
    found = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        line = line.strip().removeprefix("$ ")
        inner = re.findall(r"\$\((az [^()]*)\)", line)
        if re.match(r"(?:->.*`)?az ", line) and not line.startswith("->"):
            found.append(Command(_name(file), line))
        else:
            found += [Command(_name(file), command) for command in inner]
            found += [Command(_name(file), quoted) for quoted in INLINE.findall(line)]
    return found


def in_rust(file):
    source = file.read_text().split("#[cfg(test)]")[0]
    # Comments and documentation comments print nothing.
    source = re.sub(r"^\s*//.*$", "", source, flags=re.MULTILINE)
    found = []
    for literal in RUST_STRING.findall(source):
        text = re.sub(r"\\\n\s*", "", literal[1:-1]).replace('\\"', '"').replace("\\n", "\n")
        found += [Command(_name(file), match.group(0).strip()) for match in COMMAND.finditer(text)]
    return found


def _name(file):
    return file.relative_to(ROOT).as_posix()
