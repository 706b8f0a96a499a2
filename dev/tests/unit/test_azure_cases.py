"""Cases are read strictly, asked step by step, and judged with the list of known differences."""

import base64
import hashlib
import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import paths  # noqa: E402
from ensign_dev.azure_cases import case, emulator, known, report, signing  # noqa: E402
from ensign_dev.azure_cases.matching import Difference  # noqa: E402
from ensign_dev.azure_cases.run import CaseRun, StepDifference  # noqa: E402
from ensign_dev.azure_cases.target import Issuer, Target  # noqa: E402
from ensign_dev.azure_cases.wire import Answer, Endpoint, with_query  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402

GET = {"method": "GET", "path": "{identities}/{new}", "apiVersion": "2024-11-30"}


def document(*steps, **more):
    usual = {"id": "one", "area": "arm-msi", "evidence": "spec", "source": ["here"]}
    return {**usual, "steps": list(steps) or [step()], **more}


def step(request=GET, expect=None, **more):
    return {"request": request, "expect": expect or {"status": 200}, **more}


class TheCasesOfTheProject(unittest.TestCase):
    def test_are_valid_and_named_after_their_files(self):
        cases = case.load(paths.AZURE_CASES)
        self.assertEqual([one.id for one in cases], [one.path.stem for one in cases])
        known.load(paths.AZURE_CASES, cases)

    def test_notice_a_misspelt_name_anywhere(self):
        seen = set()
        for one in case.load(paths.AZURE_CASES):
            for path, changed in misspelt(one.document):
                if path not in seen:
                    seen.add(path)
                    self.assertNotEqual(case.check(changed), [], json.dumps(changed))
        self.assertIn("/steps/expect/others/error/code", seen)


# What a case may call as it likes: JSON of Azure, headers, and names of saved texts.
FREE = ("body", "bodyContains", "headers", "save", "details", "additionalInfo")


def misspelt(value, path=""):
    """All copies of a JSON value in which one name of a field is misspelt, with the path of that field."""
    if isinstance(value, dict):
        for name, inner in value.items():
            others = {key: kept for key, kept in value.items() if key != name}
            yield f"{path}/{name}", {**others, f"{name}x": inner}
            if name not in FREE:
                for where, changed in misspelt(inner, f"{path}/{name}"):
                    yield where, {**others, name: changed}
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            for where, changed in misspelt(inner, path):
                yield where, [*value[:index], changed, *value[index + 1:]]


class ACase(unittest.TestCase):
    def problem(self, invalid, expected):
        self.assertRegex("\n".join(case.check(invalid)), expected)

    def test_may_be_as_documented(self):
        valid = [
            document(step(expect={"status": "4xx", "error": {"code": ["A", "B"], "message": "<any>"}})),
            document(step({"token": {"assertion": {"exp": -1, "kid": "x", "nbf": None}, "omit": ["scope"]}}), area="entra"),
            document(step({"authority": "/{tenant}/x"}, {"status": 200, "hasKeys": ["a"]})),
            document(step(save={"principal": "properties.principalId"}), step({**GET, "path": "/{principal}"})),
            document({"parallel": [GET], "expect": {"oneOf": [200], "others": {"status": 409}}}),
            document({"burst": GET, "count": 3, "expect": {"last": {"status": 429}}}),
            document({"change": {"lock": "{identities}"}}, {"change": {"denyPolicy": {"scope": "/", "name": "n"}}}),
            document({"manual": "Ask nobody."}),
            document(given={"writeLatencyMs": 1, "publishedLimits": True, "trust": {"issuer": "{issuer}", "subject": "s"}}),
            document(step({**GET, "apiVersion": None, "auth": {"rights": ["a/read"], "audience": "https://x"}})),
        ]
        for one in valid:
            self.assertEqual(case.check(one), [], one)

    def test_with_anything_unknown_is_rejected(self):
        for invalid, expected in (
            (document(nots="x"), "unknown fields: nots"),
            (document(area="arm"), "area: 'arm' is unknown"),
            (document(evidence="guessed"), "evidence: 'guessed' is unknown"),
            (document(given={"delay": 1}), "given: has unknown fields: delay"),
            (document(given={"writeLatencyMs": "1"}), "given.writeLatencyMs: is not a number"),
            (document(given={"publishedLimits": 1}), "given.publishedLimits: is not true or false"),
            (document({"requests": GET}), "step 1: needs exactly one of request"),
            (document({"request": GET}), "step 1: lacks expect"),
            (document({"burst": GET, "expect": {"last": {"status": 1}}}), "lacks count"),
            (document(step({**GET, "verb": "x"})), "request: has unknown fields: verb"),
            (document(step({**GET, "method": "get"})), "'get' is unknown"),
            (document(step({**GET, "path": "identities"})), "does not start with /"),
            (document(step({**GET, "auth": "nobody"})), "auth: 'nobody'"),
            (document(step({**GET, "auth": {"rights": "some"}})), "'some' is unknown"),
            (document(step({**GET, "auth": {}})), "needs rights or audience"),
            (document(step({"token": {"claims": {}}})), "unknown fields: claims"),
            (document(step({"token": {"assertion": {"issuer": "x"}}})), "unknown fields: issuer"),
            (document(step({"token": {"omit": ["secret"]}})), "omit: 'secret' is unknown"),
            (document({"change": {"tag": "/x"}}), "unknown fields: tag"),
            (document({"change": {"lock": "/x", "denyPolicy": "/x"}}), "needs exactly one of lock, denyPolicy"),
            (document({"change": {"lock": {"scope": "/x", "level": "Some"}}}), "'Some' is unknown"),
        ):
            self.problem(invalid, expected)

    def test_with_an_expectation_that_is_unknown_or_empty_is_rejected(self):
        for expect, expected in (
            ({}, "is not a status|lacks status"),
            ({"status": 200, "bodie": {}}, "unknown fields: bodie"),
            ({"status": "200"}, "'200' is not a status"),
            ({"status": []}, "is not a status"),
            ({"status": True}, "is not a status"),
            ({"status": 200, "body": {"x": "@guidd"}}, "@guidd is unknown"),
            ({"status": 200, "body": {"x": "a <digit>"}}, "<digit> is unknown"),
            ({"status": 200, "body": {"x": "{newer}"}}, "{newer} is neither"),
            ({"status": 200, "headers": {"etag": 1}}, "headers.etag: is not a text"),
            ({"status": 200, "exact": True}, "exact is true, and belongs to body"),
            ({"status": 200, "body": {}, "exact": "yes"}, "exact is true"),
            ({"status": 200, "bodyEmpty": False}, "bodyEmpty is true"),
            ({"status": 400, "error": {}}, "error: is empty"),
            ({"status": 400, "error": {"codes": "x"}}, "unknown fields: codes"),
            ({"status": 400, "aadsts": {"error": "x"}}, "lacks code"),
            ({"status": 400, "aadsts": {"error": "x", "code": "1"}}, "code: is not a number"),
            ({"status": 400, "aadstsOneOf": []}, "at least one entry"),
            ({"status": 200, "hasKeys": []}, "at least one entry"),
        ):
            invalid = document({"request": GET, "expect": expect})
            self.problem(invalid, expected)

    def test_can_use_what_was_saved_only_later(self):
        self.problem(document(step({**GET, "path": "/{principal}"}, save={"principal": "a"})), "{principal} is neither")

    def test_is_read_from_a_file(self):
        for texts, expected in (
            ({}, "has no cases"),
            ({"a": '{"id": "a", "id": "b"}'}, "a.json: a field is there twice: id"),
            ({"a": "{"}, "a.json: "),
            ({"a": "[]"}, "a.json: the case: is not an object"),
            ({"a": json.dumps(document()), "b": json.dumps(document())}, "a.json has the same id, one"),
        ):
            with tempfile.TemporaryDirectory() as folder:
                for name, text in texts.items():
                    Path(folder, f"{name}.json").write_text(text)
                with self.assertRaisesRegex(Failure, expected):
                    case.load(Path(folder))

    def test_is_chosen_by_its_id(self):
        cases = [case.Case(document(id=name)) for name in ("a", "b")]
        self.assertEqual([one.id for one in case.chosen(cases, ["b"])], ["b"])
        self.assertEqual(case.chosen(cases, []), cases)
        with self.assertRaisesRegex(Failure, "no case c"):
            case.chosen(cases, ["a", "c"])


class FakeEndpoint(Endpoint):
    """Answers with what it is told, in order, and remembers what it was asked."""

    def __init__(self, answers, asked):
        self._answers = answers
        self._asked = asked

    def send(self, method, target, headers, body=None):
        self._asked.append((method, target, dict(headers), body))
        status, body = self._answers.pop(0)
        return Answer(status, {}, b"" if body is None else json.dumps(body).encode())

    def open(self):
        pass

    def close(self):
        pass


class FakeTarget(Target):
    subscription, tenant, location = "s", "t", "westeurope"
    issuer = Issuer("https://issuer", "https://bad", "https://nobody")

    def __init__(self, *answers):
        self.asked = []
        self.changes = []
        self._endpoint = FakeEndpoint(list(answers), self.asked)

    def group(self, case):
        return "g"

    def arm(self):
        return self._endpoint

    def authority(self):
        return self._endpoint

    def administrator(self):
        return "admin"

    def caller(self, rights, audience):
        return f"{rights} {audience}"

    def change(self, change):
        self.changes.append(change)


def run(target, *steps, **more):
    valid = document(*steps, **more)
    if case.check(valid):
        raise AssertionError(case.check(valid))
    return [str(one) for one in CaseRun(case.Case(valid), target).run()]


class Steps(unittest.TestCase):
    def test_are_asked_in_order_with_placeholders_and_what_was_saved(self):
        target = FakeTarget((200, {"properties": {"id": "p1"}}), (200, {"id": "p1"}))
        first = step(save={"principal": "properties.id"})
        second = step({**GET, "path": "/x?$filter=id eq '{principal}'", "method": "PUT", "body": {"id": "{principal}"}},
                      {"status": 200, "body": {"id": "{principal}"}, "exact": True})
        self.assertEqual(run(target, first, second), [])
        (_, path, headers, _), (method, other, _, body) = target.asked
        self.assertRegex(path, r"^/subscriptions/s/resourceGroups/g/.*/new-[0-9a-f]+\?api-version=2024-11-30$")
        self.assertEqual(headers["authorization"], "Bearer admin")
        self.assertEqual((method, other), ("PUT", "/x?$filter=id eq 'p1'&api-version=2024-11-30"))
        self.assertEqual(json.loads(body), {"id": "p1"})

    def test_name_their_number_and_go_on_after_a_difference(self):
        lines = run(FakeTarget((404, None), (200, {"a": 1})), step(), step(expect={"status": 200, "body": {"a": 2}}))
        self.assertEqual(lines, ["step 1: status: expected 200, got 404", "step 2: body.a: expected 2, got 1"])

    def test_end_if_nothing_can_be_saved(self):
        lines = run(FakeTarget((200, {}), (200, {})), step(save={"p": "a.b"}), step({**GET, "path": "/{p}"}))
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], "step 1: no answer: .*a.b is to be saved as p")

    def test_choose_the_caller(self):
        target = FakeTarget((200, None), (200, None), (200, None))
        run(target, *(step({**GET, "auth": auth}) for auth in ("none", {"rights": "none"}, {"audience": "https://v"})))
        callers = [headers.get("authorization") for _, _, headers, _ in target.asked]
        self.assertEqual(callers, [None, "Bearer none https://management.azure.com", "Bearer all https://v"])

    def test_make_changes(self):
        target = FakeTarget()
        self.assertEqual(run(target, {"change": {"lock": "/x/{group}"}}), [])
        self.assertEqual(target.changes, [{"lock": "/x/g"}])

    def test_in_parallel_have_exactly_one_winner(self):
        parallel = {"parallel": [GET, GET, GET], "expect": {"oneOf": [201], "others": {"status": 409}}}
        self.assertEqual(run(FakeTarget((409, None), (201, None), (409, None)), parallel), [])
        for statuses in ((201, 201, 409), (409, 409, 409), (201, 409, 500), (201, 201, 201)):
            self.assertNotEqual(run(FakeTarget(*((status, None) for status in statuses)), parallel), [], statuses)

    def test_in_a_burst_count_by_the_last_answer(self):
        burst = {"burst": GET, "count": 3, "expect": {"last": {"status": 429}}}
        self.assertEqual(run(FakeTarget((200, None), (200, None), (429, None)), burst), [])
        self.assertNotEqual(run(FakeTarget((200, None), (429, None), (200, None)), burst), [])

    def test_of_entra_send_a_form_in_which_some_fields_differ(self):
        created = {"properties": {"clientId": "c1"}}
        target = FakeTarget((201, created), (201, {}), (400, {}))
        token = {"assertion": {"sub": "other", "nbf": None, "kid": "k"}, "scope": "x", "omit": ["grant_type"]}
        trust = {"issuer": "{issuer}", "subject": "s"}
        lines = run(target, step({"token": token}, {"status": 400}), given={"trust": trust}, area="entra")
        self.assertEqual(lines, [])
        self.assertEqual(json.loads(target.asked[1][3])["properties"]["issuer"], "https://issuer")
        method, path, _, body = target.asked[2]
        self.assertEqual((method, path), ("POST", "/t/oauth2/v2.0/token"))
        form = dict(part.split("=") for part in body.decode().split("&"))
        self.assertEqual((form["client_id"], form["scope"]), ("c1", "x"))
        self.assertNotIn("grant_type", form)
        claims = signing.claims_of(form["client_assertion"])
        self.assertEqual((claims["iss"], claims["sub"]), ("https://issuer", "other"))
        self.assertEqual(claims["exp"] - claims["iat"], 3600)
        self.assertNotIn("nbf", claims)

    def test_need_what_is_given(self):
        lines = run(FakeTarget((403, None)), step(), given={"trust": {"issuer": "{issuer}", "subject": "s"}})
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], "^given: no answer: .*403")


class Emulators(unittest.TestCase):
    def test_are_shared_by_cases_that_need_the_same(self):
        def sharing(*steps, name="a", **given):
            return emulator.sharing(case.Case(document(*steps, id=name, given=given)))

        trust = {"issuer": "{issuer}", "subject": "s"}
        self.assertEqual(sharing(), sharing(name="b", trust=trust))
        self.assertEqual(sharing(writeLatencyMs=4), sharing(name="b", writeLatencyMs=4))
        self.assertNotEqual(sharing(writeLatencyMs=4), sharing(writeLatencyMs=5))
        self.assertNotEqual(sharing(publishedLimits=True), sharing(name="b", publishedLimits=True))
        self.assertNotEqual(sharing(readReplicas=1), sharing())
        self.assertNotEqual(sharing(unregisteredProviders=["x"]), sharing(unregisteredProviders=["y"]))
        change = {"change": {"lock": "/"}}
        self.assertNotEqual(sharing(change), sharing(change, name="b"))

    def test_are_started_with_what_is_given(self):
        given = {"writeLatencyMs": 400, "propagationSeconds": 5, "publishedLimits": True}
        flags = emulator.flags(case.Case(document(given=given)))
        self.assertEqual(flags, ["--propagation-delay", "5s", "--write-latency", "400ms", "--published-limits"])
        self.assertEqual(emulator.flags(case.Case(document(given={"publishedLimits": False}))), [])


def differing(*lines):
    return [StepDifference(1, Difference(line, 1, 2)) for line in lines]


class Verdicts(unittest.TestCase):
    ONE = "step 1: a: expected 1, got 2"

    def verdict(self, found, entry=None, **more):
        return known.Result(case.Case(document(**more)), found, entry).verdict

    def test_depend_on_what_is_known(self):
        listed = known.Known([self.ONE], "because")
        self.assertEqual(self.verdict([]), known.SAME)
        self.assertEqual(self.verdict([], steps=[{"manual": "x"}]), known.MANUAL)
        self.assertEqual(self.verdict(differing("a")), known.DIFFERS)
        self.assertEqual(self.verdict(differing("a"), listed), known.KNOWN)
        self.assertEqual(self.verdict(differing("a"), known.Known(["step 1: a: <any>"], "because")), known.KNOWN)

    def test_on_a_list_that_does_not_fit_are_bad(self):
        both = known.Known([self.ONE, "step 1: b: <any>"], "because")
        for found, entry in (
            ([], known.Known([self.ONE], "because")), (differing("a", "b"), known.Known([self.ONE], "because")),
            (differing("a"), both), (differing("b"), known.Known([self.ONE], "because")),
        ):
            self.assertEqual(self.verdict(found, entry), known.OUTDATED)
        self.assertEqual(self.verdict(differing("a", "b"), both), known.KNOWN)

    def test_decide_whether_all_is_good(self):
        one = case.Case(document())
        listed = known.Known([self.ONE], "because it is")
        good = [known.Result(one, []), known.Result(one, differing("a"), listed)]
        self.assertTrue(report.all_good(good))
        for bad in (known.Result(one, differing("a")), known.Result(one, [], listed)):
            self.assertFalse(report.all_good([*good, bad]))
            self.assertFalse(json.loads(report.machine_readable([bad]))["ok"])
        self.assertIn("it does not differ anymore", report.text([known.Result(one, [], listed)]))
        self.assertEqual(report.text([known.Result(one, differing("a"))]).splitlines(), [
            "one: different", f"    {self.ONE}", "1 cases: 1 different",
        ])

    def test_need_a_valid_list(self):
        entry = {"id": "one", "differs": ["x"], "reason": "for a reason that holds"}
        cases = [case.Case(document())]
        for entries, expected in (
            ({}, "not a list"), ([{**entry, "why": "x"}], "needs exactly"), ([{**entry, "differs": []}], "differs has"),
            ([{**entry, "reason": "todo"}], "a sentence"), ([{**entry, "id": "two"}], "no case 'two'"),
            ([entry, entry], "there twice"), ([{**entry, "differs": ["<al>"]}], "<al> is unknown"),
        ):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "differences.json").write_text(json.dumps(entries))
                with self.assertRaisesRegex(Failure, expected):
                    known.load(Path(folder), cases)
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(known.load(Path(folder), cases), {})
            Path(folder, "differences.json").write_text(json.dumps([entry]))
            self.assertEqual(list(known.load(Path(folder), cases)), ["one"])


class Signing(unittest.TestCase):
    def number(self, text):
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")

    def test_is_verified_with_the_published_key(self):
        key = signing.Key.generate("k", 1024)
        header, claims, signature = key.token({"sub": "x"}, {}).split(".")
        self.assertEqual(signing.claims_of(f"{header}.{claims}."), {"sub": "x"})
        modulus, exponent = self.number(key.jwk()["n"]), self.number(key.jwk()["e"])
        self.assertEqual(modulus.bit_length(), 1024)
        opened = pow(self.number(signature), exponent, modulus).to_bytes(128, "big")
        # PKCS #1 v1.5, as RFC 8017 has it in section 9.2; that others accept it, the cases of Entra show.
        digest = hashlib.sha256(f"{header}.{claims}".encode()).digest()
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + digest
        self.assertEqual(opened, b"\x00\x01" + b"\xff" * (125 - len(digest)) + b"\x00" + digest)

    def test_leaves_a_text_that_is_no_token_alone(self):
        for text in ("", "x", "a.b", "a.b.c", "a.W10.c"):
            self.assertEqual(signing.claims_of(text), {})


class Queries(unittest.TestCase):
    def test_are_added_to_a_path(self):
        self.assertEqual(with_query("/a", api_version="1"), "/a?api-version=1")
        self.assertEqual(with_query("/a?$filter=x", api_version="1"), "/a?$filter=x&api-version=1")
        self.assertEqual(with_query("/a", api_version=None), "/a")


if __name__ == "__main__":
    unittest.main()
