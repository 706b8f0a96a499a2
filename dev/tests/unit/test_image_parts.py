import hashlib
import json
import os
import re
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import paths  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402
from ensign_dev.image import certificates, contents, crates, debian, layout, reach, sbom, verify  # noqa: E402
from ensign_dev.image.layout import LABEL  # noqa: E402
from ensign_dev.image.origin import Origin  # noqa: E402

CERTIFICATE = certificates.BEGIN + b"\nAAAA\n" + certificates.END
REGISTRY = "registry+https://example.test/index"
LOCK = """\
[[package]]
name = "app"
version = "1.0.0"

[[package]]
name = "used"
version = "2.0.0"
checksum = "22"

[[package]]
name = "used"
version = "3.0.0"
checksum = "33"
"""
TREE = "app v1.0.0 (/checkout)\nused v2.0.0\nused v3.0.0\nused v2.0.0\n"


def package(name, version, source=REGISTRY, **fields):
    identity, folder = f"{name}@{version}", "/checkout" if source is None else f"/registry/{name}-{version}"
    return {
        "id": identity, "name": name, "version": version, "source": source, "manifest_path": f"{folder}/Cargo.toml",
        "license": "MIT/Apache-2.0", "description": "a\n  crate", "repository": None, **fields,
    }


def node(identity, **needs):
    deps = [{"pkg": dep.replace("_", "@"), "dep_kinds": [{"kind": kind}]} for dep, kind in needs.items()]
    return {"id": identity, "deps": deps}


def metadata():
    return json.dumps({
        "packages": [
            package("app", "1.0.0", None), package("used", "2.0.0"), package("used", "3.0.0"), package("cc", "1.0.0"),
        ],
        "resolve": {"root": "app@1.0.0", "nodes": [
            node("app@1.0.0", **{"used_2.0.0": None, "cc_1.0.0": "build", "used_3.0.0": "dev"}),
            node("used@2.0.0", **{"used_3.0.0": None, "cc_1.0.0": None}),
            node("used@3.0.0"),
            node("cc@1.0.0"),
        ]},
    })


class TheCertificates(unittest.TestCase):
    def test_are_concatenated_into_one_file(self):
        self.assertEqual(certificates.joined([CERTIFICATE + b"\n\n", CERTIFICATE]), (CERTIFICATE + b"\n") * 2)

    def test_must_be_exactly_one_per_file(self):
        key = CERTIFICATE.replace(b"CERTIFICATE", b"PRIVATE KEY")
        for content in (b"", b"words", key, CERTIFICATE + b"\n" + CERTIFICATE, b"words\n" + CERTIFICATE):
            with self.assertRaisesRegex(Failure, "not a single PEM certificate"):
                certificates.joined([CERTIFICATE, content])
        with self.assertRaisesRegex(Failure, "would trust no server"):
            certificates.joined([])

    def test_are_described_by_package_number_and_digest(self):
        package_of = debian.Package("ca-certificates", "20250101", "all", "debian", b"")
        about = certificates.Bundle(CERTIFICATE + b"\n", package_of).about()
        self.assertRegex(about, r"^debian ca-certificates 20250101, 1 certificates, sha256:[0-9a-f]{64}$")

    def test_have_checksums_in_the_package(self):
        listed = debian.checksums("aa  usr/share/x y.crt\nbb  etc/z\n\n")
        self.assertEqual(listed, {"usr/share/x y.crt": "aa", "etc/z": "bb"})

    def test_need_the_package_and_the_message_says_how_to_install_it(self):
        with self.assertRaisesRegex(Failure, "apt install no-such-package. On other systems"):
            debian.installed("no-such-package")


class OnAMachineWithItsOwnCA(unittest.TestCase):
    OWN = CERTIFICATE.replace(b"AAAA", b"EVIL")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.system = Path(folder.name)
        self.write("etc/os-release", b'NAME="x"\nID=debian\n')
        self.write("usr/share/doc/ca-certificates/copyright", b"notice")
        sums = []
        for name, words in (("b", b"BBBB"), ("a", b"CCCC")):
            path = f"usr/share/ca-certificates/mozilla/{name}.crt"
            content = self.write(path, CERTIFICATE.replace(b"AAAA", words))
            sums.append(f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  {path}")
        for path in ("usr/local/share/ca-certificates/own.crt", "usr/share/ca-certificates/own.crt"):
            self.write(path, self.OWN)
        self.write("etc/ssl/certs/ca-certificates.crt", self.OWN)
        outputs = (["--show", "20250101 all"], ["--control-show", "\n".join(sums)])
        cases = "\n".join(f"{flag}) echo '{output}' ;;" for flag, output in outputs)
        self.write("bin/dpkg-query", f"#!/bin/sh\ncase $1 in\n{cases}\nesac\n".encode())
        (self.system / "bin/dpkg-query").chmod(0o755)
        patch = mock.patch.dict(os.environ, {"PATH": str(self.system / "bin")})
        patch.start()
        self.addCleanup(patch.stop)

    def write(self, path, content):
        (self.system / path).parent.mkdir(parents=True, exist_ok=True)
        (self.system / path).write_bytes(content)
        return content

    def test_only_the_certificates_of_the_package_are_included(self):
        bundle = certificates.read(self.system)
        self.assertEqual(bundle.package, ("ca-certificates", "20250101", "all", "debian", b"notice"))
        self.assertEqual(re.findall(rb"^[A-Z]{4}$", bundle.pem, re.MULTILINE), [b"CCCC", b"BBBB"])

    def test_a_modified_file_of_the_package_is_rejected(self):
        self.write("usr/share/ca-certificates/mozilla/a.crt", self.OWN)
        with self.assertRaisesRegex(Failure, "/usr/share/.*/a.crt differs from the package ca-certificates"):
            certificates.read(self.system)


class TheCrates(unittest.TestCase):
    def setUp(self):
        self.graph = crates.graph(metadata(), TREE, LOCK)

    def test_exclude_build_and_test_dependencies(self):
        self.assertEqual((self.graph.root.name, self.graph.root.version), ("app", "1.0.0"))
        others = [(crate.name, crate.version) for crate in self.graph.others]
        self.assertEqual(others, [("used", "2.0.0"), ("used", "3.0.0")])
        self.assertEqual(self.graph.root.needs, (("used", "2.0.0"),))
        self.assertEqual(self.graph.others[0].needs, (("used", "3.0.0"),))

    def test_have_the_checksums_of_their_versions(self):
        self.assertEqual([crate.checksum for crate in self.graph.others], ["22", "33"])
        self.assertIsNone(self.graph.root.checksum)

    def test_come_from_these_folders(self):
        self.assertEqual(self.graph.sources, (Path("/registry"),))

    def test_must_be_in_cargos_metadata(self):
        with self.assertRaisesRegex(ValueError, "strange"):
            crates.graph(metadata(), TREE + "strange v1.0.0\n", LOCK)


class TheSbom(unittest.TestCase):
    def document(self):
        libc = debian.Package("libc6-dev", "2.36-9+deb12u1", "amd64", "debian", b"")
        roots = debian.Package("ca-certificates", "20250101", "all", "debian", b"")
        graph = crates.graph(metadata(), TREE, LOCK)
        return sbom.cyclonedx(graph, sbom.Others("1.90.0", libc, roots), Origin("1.0.0", "c0ffee", 0))

    def test_lists_the_crates_the_linked_libraries_and_the_certificates(self):
        document = self.document()
        self.assertEqual((document["bomFormat"], document["specVersion"]), ("CycloneDX", "1.5"))
        self.assertEqual([part["purl"] for part in document["components"]], [
            "pkg:cargo/used@2.0.0",
            "pkg:cargo/used@3.0.0",
            "pkg:generic/rust-std@1.90.0",
            "pkg:deb/debian/libc6-dev@2.36-9%2Bdeb12u1?arch=amd64",
            "pkg:deb/debian/ca-certificates@20250101?arch=all",
        ])
        self.assertEqual(document["components"][0], {
            "type": "library", "bom-ref": "pkg:cargo/used@2.0.0", "name": "used", "version": "2.0.0",
            "purl": "pkg:cargo/used@2.0.0", "description": "a crate", "hashes": [{"alg": "SHA-256", "content": "22"}],
            "licenses": [{"expression": "MIT OR Apache-2.0"}],
        })

    def test_names_the_commit(self):
        about = self.document()["metadata"]
        self.assertEqual(about["timestamp"], "1970-01-01T00:00:00Z")
        self.assertEqual((about["component"]["type"], about["component"]["name"]), ("application", "app"))
        self.assertEqual(about["component"]["properties"][0]["value"], "c0ffee")

    def test_has_no_dangling_references(self):
        document = self.document()
        refs = [part["bom-ref"] for part in document["components"]] + [document["metadata"]["component"]["bom-ref"]]
        self.assertEqual(len(set(refs)), len(refs))
        self.assertEqual(sorted(entry["ref"] for entry in document["dependencies"]), sorted(refs))
        for entry in document["dependencies"]:
            self.assertLessEqual(set(entry["dependsOn"]), set(refs))
        needs = {entry["ref"]: entry["dependsOn"] for entry in document["dependencies"]}
        self.assertEqual(len(needs["pkg:cargo/app@1.0.0"]), 4)

    def test_has_spdx_license_expressions(self):
        for license_text in ("MIT/Apache-2.0", "MIT / Apache-2.0", "MIT OR Apache-2.0"):
            self.assertEqual(sbom.expression(license_text), "MIT OR Apache-2.0")


class AVerifiedImage(unittest.TestCase):
    def test_prints_its_version_and_nothing_else(self):
        verify.require_version(verify.Ran(0, "ensign 1.0.0", ""), "1.0.0")
        for ran in (verify.Ran(0, "ensign 1.0.1", ""), verify.Ran(1, "ensign 1.0.0", ""), verify.Ran(127, "", "no")):
            with self.assertRaisesRegex(Failure, f"status {ran.status}"):
                verify.require_version(ran, "1.0.0")

    def test_does_not_contain_the_emulator(self):
        graph = crates.graph(metadata(), TREE, LOCK)
        verify.require_no_emulator(graph)
        emulator = graph.others[0]._replace(name="ensign-azure-emulator")
        with self.assertRaisesRegex(Failure, "app depends on ensign-azure-emulator"):
            verify.require_no_emulator(graph._replace(others=(*graph.others, emulator)))

    def test_connects_to_this_machine_only(self):
        (cluster,) = json.loads(reach.kubeconfig(4711))["clusters"]
        self.assertEqual(cluster["cluster"], {"server": f"https://{reach.HOST}:4711"})


class TheDockerfile(unittest.TestCase):
    """It gets the image's files from dev/image.py; everything else in it has to match."""

    def setUp(self):
        self.text = (paths.ROOT / "Dockerfile").read_text()

    def test_uses_the_rust_version_of_the_package(self):
        wanted = re.search(r'^rust-version = "(.+)"$', (paths.ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
        self.assertIn(f"ARG RUST_VERSION={wanted}\n", self.text)

    def test_has_the_same_user_paths_and_variables(self):
        variables = " ".join(f"{name}={value}" for name, value in layout.VARIABLES.items())
        for line in (
            f"USER {contents.USER_ID}:{contents.USER_ID}",
            f'ENTRYPOINT ["/{contents.BINARY}"]',
            f"ENV PATH=/{Path(contents.BINARY).parent} SSL_CERT_FILE=/{contents.CERTIFICATES} {variables}",
        ):
            self.assertIn(line + "\n", self.text)

    def test_adds_nothing_else_in_its_last_stage(self):
        last = self.text[self.text.rindex("\nFROM "):]
        self.assertTrue(last.startswith("\nFROM scratch\n"))
        self.assertEqual(re.findall(r"^(?:COPY|ADD|RUN) .*", last, re.MULTILINE), ["COPY --from=build /image /"])

    def test_has_the_labels_that_do_not_depend_on_the_build(self):
        for label in ("title", "description", "version", "revision", "licenses"):
            self.assertIn(LABEL + label + "=", self.text)
        version = re.search(r'^version = "(.+)"$', (paths.ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
        self.assertIn(f'{LABEL}version="{version}"', self.text)


if __name__ == "__main__":
    unittest.main()
