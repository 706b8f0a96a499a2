"""What differs from a case is noticed, and nothing else."""

import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.azure_cases.matching import compare  # noqa: E402
from ensign_dev.azure_cases.values import KINDS, fill  # noqa: E402
from ensign_dev.azure_cases.wire import Answer  # noqa: E402

GUID = "b24988ac-6180-42a0-ab88-20f7382dd24c"
TIME = "2025-11-19T01:02:03.1234567Z"


def answer(body=None, status=200, **headers):
    data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def found(expect, got):
    return [str(one) for one in compare({"status": 200, **expect}, got)]


class Matching(unittest.TestCase):
    def same(self, expect, *answers):
        for got in answers:
            self.assertEqual(found(expect, got), [], got.body)

    def different(self, expect, *answers):
        for got in answers:
            self.assertNotEqual(found(expect, got), [], got.body)


class Statuses(Matching):
    def test_are_one_of_those_expected(self):
        for expected, right, wrong in (
            (201, [201], [200, 400]), ([200, 201], [200, 201], [202, 404]), ("4xx", [400, 499], [200, 500]),
        ):
            for status in right:
                self.same({"status": expected}, answer({}, status))
            for status in wrong:
                self.different({"status": expected}, answer({}, status))

    def test_of_failure_instead_of_success_are_the_only_difference(self):
        lines = found({"body": {"name": "x"}, "headers": {"etag": "@any"}}, answer({"error": {"code": "X"}}, 404))
        self.assertEqual(lines, ['status: expected 200, got 404 {"error": {"code": "X"}}'])

    def test_that_differ_do_not_hide_other_differences(self):
        self.assertEqual(len(found({"status": 409, "error": {"code": "A"}}, answer({"error": {"code": "B"}}, 400))), 2)


class Bodies(Matching):
    def test_have_the_expected_fields_and_may_have_others_unless_they_are_exact(self):
        body = {"name": "x", "properties": {"a": 1}}
        more = {"name": "x", "properties": {"a": 1, "b": 2}}
        self.same({"body": body}, answer(body), answer({**body, "more": 1}), answer(more))
        self.different({"body": body}, answer({"name": "x"}), answer({**body, "name": "y"}), answer([]), answer())
        exact = {"body": body, "exact": True}
        self.same(exact, answer(body))
        self.different(exact, answer({**body, "more": None}), answer(more))

    def test_distinguish_types(self):
        for expected, others in (
            (1, [True, "1", 2, None]), (True, [1, "true", False]), (None, [0, "", False, {}]), ("", [None, " "]),
            ({}, [[], None]), ([], [{}, None, [1]]), ("1", [1]), ("a", ["A", "a ", " a"]),
        ):
            self.same({"body": {"x": expected}, "exact": True}, answer({"x": expected}))
            for other in others:
                self.different({"body": {"x": expected}, "exact": True}, answer({"x": other}))
            self.different({"body": {"x": expected}}, answer({}))

    def test_that_are_no_json_are_different(self):
        self.different({"body": {}}, answer("<html>"), answer(""), answer())
        self.different({"bodyContains": {"a": 1}}, answer("a"))

    def test_may_have_to_be_empty(self):
        self.same({"bodyEmpty": True}, answer())
        self.different({"bodyEmpty": True}, answer({}), answer(" "))

    def test_have_certain_keys(self):
        self.same({"hasKeys": ["a", "b"]}, answer({"a": 1, "b": None, "c": 3}))
        self.different({"hasKeys": ["a", "b"]}, answer({"a": 1}), answer([]), answer())
        self.same({"bodyKeys": ["a", "b"]}, answer({"b": 1, "a": 2}))
        self.different({"bodyKeys": ["a", "b"]}, answer({"a": 1}), answer({"a": 1, "b": 2, "c": 3}), answer())

    def test_have_a_number_of_entries(self):
        self.same({"count": 2}, answer({"value": [1, 2]}), answer([1, 2]))
        self.different({"count": 2}, answer({"value": [1]}), answer({"value": 2}), answer({}), answer())
        self.different({"count": 0}, answer({}))


class Lists(Matching):
    def test_match_in_any_order(self):
        self.same({"body": [1, 2, 2]}, answer([2, 1, 2]))
        self.different({"body": [1, 2, 2]}, answer([1, 1, 2]), answer([1, 2]), answer([1, 2, 2, 2]))

    def test_match_if_any_assignment_does(self):
        # The first entry fits both, the second only one.
        self.same({"body": ["@string", "a"]}, answer(["a", "b"]), answer(["b", "a"]))
        self.same({"body": ["<any>", "x<any>", "xy"]}, answer(["xy", "xz", "q"]))
        self.different({"body": ["@string", "a"]}, answer(["b", "c"]), answer(["a", 1]))

    def test_may_have_more_entries_only_where_a_part_is_asked_for(self):
        a, b = {"name": "a"}, {"name": "b"}
        self.same({"bodyContains": {"value": [a]}}, answer({"value": [b, {"name": "a", "x": 1}]}))
        self.different({"bodyContains": {"value": [a]}}, answer({"value": []}), answer({"value": [b]}))
        self.different({"bodyContains": {"value": [a, a]}}, answer({"value": [a]}))
        self.different({"body": {"value": [a]}}, answer({"value": [b, a]}))

    def test_that_differ_are_compared_with_the_nearest_entry(self):
        expected = {"body": {"value": [{"name": "a", "x": 1}, {"name": "b", "x": 2}]}}
        lines = found(expected, answer({"value": [{"name": "b", "x": 3}, {"name": "a", "x": 1}]}))
        self.assertEqual(lines, ["body.value[].x: expected 2, got 3"])


class Values(Matching):
    EXAMPLES = {
        "@guid": ([GUID, GUID.upper()], ["", GUID[:-1], GUID + "0", GUID.replace("-", ""), 1, None]),
        "@string": (["", "x"], [1, None, [], True]),
        "@int": ([0, -1, 3599], [True, 1.5, "1", None]),
        "@digits": (["0", "16499"], ["", "1.5", "-1", 5, None]),
        "@time": ([TIME, "2025-11-19T01:02:03Z", "2025-11-19T01:02:03+00:00"], ["2025-11-19", "now", 1, "", TIME + " "]),
        "@any": ([None, 0, "", {}, []], []),
        "@present": ([0, "", {}, False], [None]),
        "@null": ([None], [0, "", False, "null"]),
        "@absent": ([], [None, 0, ""]),
    }

    def test_are_all_covered_here(self):
        self.assertEqual(set(self.EXAMPLES), set(KINDS))

    def test_say_what_a_value_is(self):
        for kind, (right, wrong) in self.EXAMPLES.items():
            for value in right:
                self.same({"body": {"x": kind}}, answer({"x": value}))
            for value in wrong:
                self.different({"body": {"x": kind}}, answer({"x": value}))

    def test_have_to_be_there_except_for_one(self):
        for kind in KINDS:
            check = self.same if kind == "@absent" else self.different
            check({"body": {"x": kind}, "exact": True}, answer({}))


class Texts(Matching):
    def test_are_the_same_except_for_the_parts_that_vary(self):
        for text, right, wrong in (
            ("a<any>z", ["az", "a\nz", "abcz"], ["a", "az ", "Az"]),
            ("in '<digits>' seconds.", ["in '10' seconds."], ["in '' seconds.", "in 'x' seconds.", "in '10' seconds"]),
            ("<precise>", [TIME], ["2025-11-19T01:02:03Z", "2025-11-19T01:02:03.123Z"]),
            ("<time>!", [TIME + "!"], ["!", "today!"]),
            ("ID <guid>", [f"ID {GUID}"], ["ID x", f"ID {GUID} "]),
            ("a.c (x)? [y]*", ["a.c (x)? [y]*"], ["abc (x)? [y]*", "a.c x"]),
        ):
            for value in right:
                self.same({"body": {"x": text}}, answer({"x": value}))
            for value in wrong:
                self.different({"body": {"x": text}}, answer({"x": value}))


class Headers(Matching):
    def test_are_compared_whatever_the_case_of_their_names(self):
        self.same({"headers": {"Content-Length": "0"}}, answer(content_length="0"))
        self.same({"headers": {"X-Ms-Request-Id": "@present", "etag": "@absent"}}, answer(x_ms_request_id="x"))
        self.different({"headers": {"content-length": "0"}}, answer(content_length="1"), answer())
        self.different({"headers": {"etag": "@absent"}}, answer(etag=""))
        self.different({"headers": {"etag": "@present"}}, answer())
        self.different({"headers": {"www-authenticate": "Bearer<any>"}}, answer(www_authenticate="Basic"))


class Errors(Matching):
    def arm(self, code="NotFound", message="It is gone.", **more):
        return answer({"error": {"code": code, "message": message, **more}}, 404)

    def entra(self, code=700213, message="No.", trailing=True, error="invalid_client"):
        ids = f" Trace ID: {GUID} Correlation ID: {GUID} Timestamp: 2026-01-18 00:16:16Z" if trailing else ""
        body = {"error": error, "error_codes": [code], "error_description": f"AADSTS{code}: {message}{ids}"}
        return answer(body, 401)

    def test_of_arm_have_the_code_and_the_message(self):
        expect = {"status": 404, "error": {"code": "NotFound", "message": "It is gone."}}
        self.same(expect, self.arm(), self.arm(target="x"))
        self.different(expect, self.arm("Gone"), self.arm(message="It is gone"), answer({}, 404), answer("", 404))
        self.different(expect, answer({"error": "NotFound"}, 404), answer({"code": "NotFound", "message": "It is gone."}, 404))
        self.same({"status": 404, "error": {"code": ["Gone", "NotFound"]}}, self.arm())
        self.different({"status": 404, "error": {"code": ["Gone", "Lost"]}}, self.arm())

    def test_of_arm_may_have_details(self):
        expect = {"status": 404, "error": {"details": [{"target": "t"}]}}
        self.same(expect, self.arm(details=[{"target": "t", "code": "c"}, {"target": "u"}]))
        self.different(expect, self.arm(), self.arm(details=[{"target": "u"}]))

    def test_of_entra_have_the_message_without_ids(self):
        expect = {"status": 401, "aadsts": {"error": "invalid_client", "code": 700213, "message": "No."}}
        self.same(expect, self.entra())
        self.different(
            expect, self.entra(700211), self.entra(message="Yes."), self.entra(error="invalid_grant"), self.arm(),
            self.entra(message="No. More."), answer({"error": "invalid_client"}, 401), answer("", 401),
        )
        longer = self.entra()
        longer.body = longer.body.replace(b"[700213]", b"[700213, 1]")
        self.different(expect, longer)

    def test_of_entra_may_have_one_of_several_codes(self):
        expect = {"status": 401, "error": "invalid_request", "aadstsOneOf": [1, 2], "messageStarts": "Request to"}
        self.same(expect, self.entra(2, "Request to X failed.", error="invalid_request"))
        self.different(
            expect, self.entra(3, "Request to X", error="invalid_request"), self.entra(2, "Request to X"),
            self.entra(2, "A request to X", error="invalid_request"), answer("", 401), answer({"error_codes": []}, 401),
        )

    def test_may_be_known_only_by_the_start_of_the_message(self):
        expect = {"status": "4xx", "messageStarts": "It is"}
        self.same(expect, self.arm(), self.entra(message="It is so."))
        self.different(expect, self.arm(message="Is it?"), self.entra(message="No, it is."), answer("it", 400))


class Messages(Matching):
    def test_are_one_line_and_show_no_token(self):
        token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
        for got in (answer({"x": token}), answer(f"first\n  {token}\n", 500), answer(f'{{"x": "{token}"}}')):
            lines = found({"body": {"x": "y"}}, got)
            self.assertEqual(len(lines), 1)
            self.assertNotIn("\n", lines[0])
            self.assertNotIn("eyJ", lines[0])
            self.assertIn("<token>", lines[0])

    def test_tell_a_missing_field_from_null_and_spaces_apart(self):
        self.assertEqual(found({"body": {"x": 1}}, answer({})), ["body.x: expected 1, got nothing"])
        self.assertEqual(found({"body": {"x": 1}}, answer({"x": None})), ["body.x: expected 1, got null"])
        self.assertEqual(found({"body": {"x": "a  b"}}, answer({"x": "a b"})), ['body.x: expected "a  b", got "a b"'])


class Placeholders(unittest.TestCase):
    def test_are_replaced_in_every_text(self):
        bindings = {"new": "n1", "guid": GUID, "caller.objectId": "o"}
        value = {"a": ["/x/{new}-b", "{caller.objectId}"], "{new}": "{guid:simple}", "n": 1}
        filled = {"a": ["/x/n1-b", "o"], "n1": GUID.replace("-", ""), "n": 1}
        self.assertEqual(fill(value, bindings), filled)

    def test_are_no_json_in_a_text(self):
        text = '[{"policyAssignment":{}}] {} {1}'
        self.assertEqual(fill(text, {}), text)

    def test_without_a_value_are_an_error(self):
        with self.assertRaises(KeyError):
            fill("{new}", {})


if __name__ == "__main__":
    unittest.main()
