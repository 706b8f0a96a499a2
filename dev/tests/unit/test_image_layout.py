import io
import json
import os
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.failure import Failure  # noqa: E402
from ensign_dev.image import contents, layer, layout, unpack  # noqa: E402
from ensign_dev.image.assemble import ARCHIVE, LAYOUT, SBOM, assemble  # noqa: E402
from ensign_dev.image.origin import Origin  # noqa: E402
from ensign_dev.image.platforms import PLATFORMS  # noqa: E402

ORIGIN = Origin("1.2.3", "c0ffee", 1_000_000_000)
FACTS = layout.Facts(ORIGIN, PLATFORMS[0], "about", "Apache-2.0", "certificates", "rustc")


class ImageTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.binary = self.folder / "binary"
        self.binary.write_bytes(b"program" * 1000)

    def parts(self):
        return contents.Parts(self.binary, b"trusted\n", {"b": 1, "a": "ü"}, b"license\n", {"libc": b"notice\n"})

    def assemble(self, name="image", facts=FACTS):
        return assemble(self.folder / name, self.parts(), facts)

    def unpack(self, written):
        root = self.folder / "root"
        root.mkdir()
        return unpack.unpack(written.folder, root)

    def everything(self, name):
        folder = self.folder / name
        return {
            file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
        }


class TheSameParts(ImageTest):
    def test_give_the_same_bytes_regardless_of_time_user_and_umask(self):
        self.assemble("one")
        os.utime(self.binary, (1, 1))
        self.binary.chmod(0o600)
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        other = mock.patch.dict(os.environ, {"USER": "other", "TZ": "Asia/Tokyo"})
        with mock.patch("time.time", return_value=4e9), other:
            self.assemble("two")
        self.assertEqual(self.everything("one"), self.everything("two"))

    def test_give_another_digest_if_one_of_them_changes(self):
        first = self.assemble()
        self.binary.write_bytes(b"another")
        second = self.assemble()
        self.assertNotEqual(first.manifest, second.manifest)
        later = FACTS._replace(origin=ORIGIN._replace(seconds=ORIGIN.seconds + 1))
        third = self.assemble(facts=later)
        self.assertNotEqual(second.manifest, third.manifest)
        self.assertEqual(second.diff_id, third.diff_id)

    def test_replace_the_output_of_an_earlier_run(self):
        self.assemble()
        self.binary.write_bytes(b"another")
        written = self.assemble()
        self.assertEqual(len(list((written.folder / "blobs" / "sha256").iterdir())), 3)
        self.assertEqual([path.name for path in self.folder.glob("image*")], ["image"])


class AnImage(ImageTest):
    def test_contains_only_these_files_owned_by_root_and_without_times(self):
        unpacked = self.unpack(self.assemble())
        files = {entry.name: entry.mode for entry in unpacked.entries if entry.isreg()}
        self.assertEqual(files, {
            "etc/group": 0o644,
            "etc/nsswitch.conf": 0o644,
            "etc/passwd": 0o644,
            "etc/ssl/certs/ca-certificates.crt": 0o644,
            "usr/bin/ensign": 0o755,
            "usr/share/doc/ensign/LICENSE": 0o644,
            "usr/share/doc/ensign/ensign.cdx.json": 0o644,
            "usr/share/doc/libc/copyright": 0o644,
        })
        for entry in unpacked.entries:
            self.assertEqual((entry.uid, entry.gid, entry.mtime, entry.uname, entry.gname), (0, 0, 0, "", ""))
        names = [entry.name for entry in unpacked.entries]
        folders = [name for name in names if name not in files]
        self.assertEqual(names, sorted(folders) + sorted(files))

    def test_runs_as_a_numeric_user_that_is_not_root(self):
        config = self.unpack(self.assemble()).config["config"]
        self.assertEqual(config["User"], "65532:65532")
        users = [line.split(":") for line in (self.folder / "root/etc/passwd").read_text().splitlines()]
        groups = [line.split(":") for line in (self.folder / "root/etc/group").read_text().splitlines()]
        self.assertIn(["ensign", "65532", "65532"], [[user[0], user[2], user[3]] for user in users])
        self.assertIn(["ensign", "65532"], [[group[0], group[2]] for group in groups])
        self.assertEqual({user[6] for user in users}, {"/sbin/nologin"})

    def test_has_its_program_and_certificates_at_the_configured_paths(self):
        config = self.unpack(self.assemble()).config["config"]
        env = dict(entry.split("=", 1) for entry in config["Env"])
        root = self.folder / "root"
        self.assertEqual((root / config["Entrypoint"][0][1:]).read_bytes(), self.binary.read_bytes())
        self.assertEqual((root / env["SSL_CERT_FILE"][1:]).read_bytes(), b"trusted\n")
        self.assertTrue(config["Entrypoint"][0].startswith(env["PATH"] + "/"))

    def test_has_labels_with_its_origin_but_nothing_about_the_build_machine(self):
        config = self.unpack(self.assemble()).config
        self.assertEqual(config["config"]["Labels"], {
            "org.opencontainers.image.title": "ensign",
            "org.opencontainers.image.description": "about",
            "org.opencontainers.image.version": "1.2.3",
            "org.opencontainers.image.revision": "c0ffee",
            "org.opencontainers.image.created": "2001-09-09T01:46:40Z",
            "org.opencontainers.image.licenses": "Apache-2.0",
            "dev.ensign.ca-certificates": "certificates",
            "dev.ensign.compiler": "rustc",
        })
        self.assertEqual((config["created"], config["architecture"], config["os"]), (
            "2001-09-09T01:46:40Z", "amd64", "linux",
        ))
        for name, content in self.everything("image").items():
            self.assertNotIn(str(self.folder).encode(), content, name)

    def test_has_no_revision_if_it_is_unknown(self):
        facts = FACTS._replace(origin=ORIGIN._replace(revision=None))
        config = self.unpack(self.assemble(facts=facts)).config
        self.assertNotIn("org.opencontainers.image.revision", config["config"]["Labels"])

    def test_contains_the_sbom_that_is_written_next_to_it(self):
        self.unpack(self.assemble())
        beside = (self.folder / "image" / SBOM).read_bytes()
        self.assertEqual((self.folder / "root" / contents.SBOM).read_bytes(), beside)
        # With sorted keys.
        self.assertEqual(beside.decode(), '{"a":"ü","b":1}')

    def test_has_the_same_files_when_it_is_written_to_a_folder(self):
        self.unpack(self.assemble())
        folder = self.folder / "folder"
        contents.write(folder, contents.files(self.parts()))
        self.assertEqual(self.everything("folder"), self.everything("root"))
        self.assertEqual((folder / contents.BINARY).stat().st_mode & 0o7777, 0o755)


class OneFile(ImageTest):
    def test_contains_the_layout_and_the_manifest_for_older_engines(self):
        written = self.assemble()
        with tarfile.open(self.folder / "image" / ARCHIVE) as tar:
            found = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        (older,) = json.loads(found.pop("manifest.json"))
        self.assertEqual(found, {
            file.relative_to(written.folder).as_posix(): file.read_bytes()
            for file in written.folder.rglob("*") if file.is_file()
        })
        self.assertEqual(older["RepoTags"], ["ensign:1.2.3"])
        self.assertEqual(json.loads(found[older["Config"]])["os"], "linux")
        (packed,) = older["Layers"]
        self.assertEqual(found[packed][:2], b"\x1f\x8b")

    def test_names_the_image_for_each_kind_of_tool(self):
        index = json.loads((self.assemble().folder / "index.json").read_bytes())
        (descriptor,) = index["manifests"]
        self.assertEqual(descriptor["platform"], {"architecture": "amd64", "os": "linux"})
        self.assertEqual(descriptor["annotations"], {
            "org.opencontainers.image.ref.name": "1.2.3",
            "io.containerd.image.name": "docker.io/library/ensign:1.2.3",
        })


class AChangedLayout(ImageTest):
    def test_is_rejected_if_any_blob_was_changed(self):
        written = self.assemble()
        for blob in sorted((written.folder / "blobs" / "sha256").iterdir()):
            content = blob.read_bytes()
            blob.write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
            with self.subTest(blob=blob.name), tempfile.TemporaryDirectory() as root:
                with self.assertRaisesRegex(Failure, f"{blob.name} does not match its digest"):
                    unpack.unpack(written.folder, Path(root))
            blob.write_bytes(content)
        self.unpack(written)

    def test_is_rejected_if_its_layer_does_not_match_the_configuration(self):
        other = layer.write(self.folder / "layer", [contents.File("f", 0o644, b"")])
        config = layout.configuration(FACTS, "sha256:" + "0" * 64, 1, "bin/f", "f")
        written = layout.write(self.folder / "image", self.folder / "layer", config)
        with self.assertRaisesRegex(Failure, f"{other.digest} does not match the image's configuration"):
            self.unpack(written)

    def test_is_rejected_if_it_contains_a_forbidden_entry(self):
        def entry(**fields):
            info = layer.member("f", 0o644)
            for name, value in fields.items():
                setattr(info, name, value)
            return info

        self.assertEqual(unpack.problem(entry()), "")
        for fields, reason in (
            ({"type": tarfile.SYMTYPE}, "neither a file"),
            ({"type": tarfile.CHRTYPE}, "neither a file"),
            ({"name": "/f"}, "outside"),
            ({"name": "a/../../f"}, "outside"),
            ({"uid": 65532}, "is writable"),
            ({"mode": 0o666}, "is writable"),
            ({"mode": 0o4755}, "setuid"),
            ({"mtime": 1}, "modification time"),
        ):
            with self.subTest(**fields):
                self.assertIn(reason, unpack.problem(entry(**fields)))

    def test_is_read_in_the_order_in_which_it_was_written(self):
        files = [contents.File("a/c", 0o644, self.binary), contents.File("a/b", 0o755, b"x")]
        layer.write(self.folder / "layer", files)
        with tarfile.open(fileobj=io.BytesIO((self.folder / "layer").read_bytes())) as tar:
            self.assertEqual([(member.name, member.size) for member in tar], [("a", 0), ("a/b", 1), ("a/c", 7000)])


if __name__ == "__main__":
    unittest.main()
