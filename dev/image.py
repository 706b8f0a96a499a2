#!/usr/bin/env python3
"""Build the container image in target/image, without a container engine and without a base image.

The output is an OCI layout (target/image/layout), the same image as a tar archive (ensign.tar), and its SBOM
(ensign.cdx.json). Builds are reproducible: the same commit, compilers and packages give the same digest. See docs/image.md.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
from pathlib import Path

from ensign_dev import main, preflight
from ensign_dev.image import make
from ensign_dev.progress import Progress


def image() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="", metavar="NAME", help="amd64 or arm64 (default: this machine's)")
    parser.add_argument("--revision", metavar="HASH", help="the commit hash; needed only if there is no git (default: HEAD)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="only write the files of the image to this folder")
    options = parser.parse_args()
    preflight.require("image", control_plane_built=True)
    if options.root is not None:
        make.write_root(options.root, options.revision, Progress())
    else:
        make.make(options.arch, options.revision, Progress())
    return 0


if __name__ == "__main__":
    main.run(image)
