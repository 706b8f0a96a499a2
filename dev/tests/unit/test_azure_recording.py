"""What the recorder replays, what it keeps to itself, and that it removes what it made."""

import json
import os
import ssl
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import paths  # noqa: E402
from ensign_dev.azure_cases import azure, case, record, replay, signing  # noqa: E402
from ensign_dev.azure_cases.scrub import Scrubber, identifying, leaks  # noqa: E402
from ensign_dev.azure_cases.wire import Answer, Endpoint  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
TENANT = "99999999-8888-4777-8666-555555555555"
OTHER = "abcdefab-cdef-4abc-8def-abcdefabcdef"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
SECRETS = {"the tenant": TENANT, "the subscription": SUBSCRIPTION, "the token's claim name": "Alexandra Doe"}
KEY = signing.Key.generate("k", 1024)
BINDINGS = {"subscription": SUBSCRIPTION, "tenant": TENANT, "group": "g-1", "location": "eastus", "new": "new-1"}


def scrubber(literal=None):
    return Scrubber(BINDINGS, SECRETS, literal)


def answer(body=None, status=200, **headers):
    data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


class Scrubbing(unittest.TestCase):
    def test_replaces_what_is_known_by_placeholders(self):
        for text, expected in (
            (f"/subscriptions/{SUBSCRIPTION}/x", "/subscriptions/{subscription}/x"),
            (SUBSCRIPTION, "{subscription}"),
            (f"Principal {TENANT.replace('-', '')} is", "Principal {tenant:simple} is"),
            ("in eastus, eastus2", "in {location}, eastus2"),
            ("new-1-b and new-12", "{new}-b and new-12"),
        ):
            self.assertEqual(scrubber().text(text), expected)

    def test_replaces_what_varies_or_identifies(self):
        for text, expected in (
            (OTHER, "@guid"), ("2026-01-18T00:16:16.1234567Z", "@time"), (f"ID {OTHER}.", "ID <guid>."),
            ("at 2026-01-18 00:16:16Z", "at <any>"), ("since Mon, 18 Jan 2026 00:16:16 GMT", "since <any>"),
            ("from 10.20.30.40:443", "from <any>"), ("from 2001:db8:0:0:0:0:0:1 on", "from <any> on"),
            ("by somebody@contoso.example", "by <any>"), ("by alexandra doe.", "by <any>."),
            (f"token {KEY.token({'a': 1}, {})}", "token <any>"),
            (OTHER.replace("-", ""), "<any>"), ("a" * 30 + "1" * 30, "<any>"),
        ):
            self.assertEqual(scrubber().text(text), expected)
            self.assertEqual(leaks(json.dumps(scrubber().text(text)), SECRETS, None), [])

    def test_leaves_alone_what_the_case_says_itself(self):
        self.assertEqual(scrubber({"name": READER}).text(READER), READER)
        self.assertEqual(scrubber({"path": f"/x/{READER}"}).text(f"role {READER}"), f"role {READER}")
        plain = {"n": 1, "x": None, "l": [True, "plain"]}
        self.assertEqual(scrubber().value(plain), plain)

    def test_leaves_nothing_that_a_case_would_read_as_something_else(self):
        for text in ("@string", "a <digits> b", "the {group}", "@", "{what}"):
            written = {"status": 200, "body": {"x": scrubber().text(text)}}
            step = {"request": {"method": "GET", "path": "/"}, "expect": written}
            document = {"id": "a", "area": "entra", "evidence": "spec", "source": ["x"], "steps": [step]}
            self.assertEqual(case.check(document), [], text)
            self.assertIn("<any>", written["body"]["x"])


class Leaks(unittest.TestCase):
    def test_are_named_and_not_repeated(self):
        token = f"eyJ{'a' * 20}.{'b' * 30}.{'c' * 30}"
        for text, expected in (
            (f"x {TENANT.upper()}", "the tenant"), (TENANT.replace("-", ""), "the tenant"),
            ("ALEXANDRA DOE", "claim name"),
            (OTHER, "a GUID"), (OTHER.replace("-", ""), "a GUID without hyphens"), ("1.2.3.4", "an IP address"),
            ("a@b.example", "a mail address"), ("2026-01-18T00:16:16Z", "a time"), (token, "a token"),
            ("b" * 30, "the token"),
        ):
            found = leaks(text, {**SECRETS, "the token": token}, {"steps": [READER]})
            self.assertIn(expected, " ".join(found), text)
            self.assertNotIn(text, " ".join(found))

    def test_are_not_what_the_case_says_itself(self):
        original = case.load(paths.AZURE_CASES)
        for one in original:
            self.assertEqual(leaks(json.dumps(one.document), SECRETS, one.document), [], one.id)
        self.assertEqual(leaks(READER, SECRETS, {"name": READER}), [])

    def test_of_a_token_are_its_claims(self):
        claims = {"oid": OTHER, "aud": "https://management.azure.com", "name": "Me", "x": f"/a/{TENANT}", "exp": 1}
        self.assertEqual(set(identifying(claims).values()), {OTHER, "Me", f"/a/{TENANT}", TENANT})

    def test_remove_the_file_again(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "new" / "a.json"
            self.assertEqual(record.write(file, {"x": TENANT}, SECRETS, {}), ["the tenant", "a GUID"])
            self.assertFalse(file.exists())
            self.assertEqual(record.write(file, {"x": "{tenant}"}, SECRETS, {}), [])
            self.assertEqual(json.loads(file.read_text()), {"x": "{tenant}"})


def document(*requests, **more):
    steps = [{"request": request, "expect": {"status": 200}} for request in requests]
    usual = {"id": "one", "area": "arm-msi", "evidence": "spec", "source": ["here"], "steps": steps}
    valid = {**usual, **more}
    if case.check(valid):
        raise AssertionError(case.check(valid))
    return case.Case(valid)


def request(method, path, **more):
    return {"method": method, "path": path, "apiVersion": "2024-11-30", **more}


class Skipping(unittest.TestCase):
    GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"

    def test_leaves_what_stays_in_the_group(self):
        role = f"{self.GROUP}/providers/Microsoft.Authorization/roleDefinitions"
        public = f"/subscriptions/{{subscription}}/providers/Microsoft.Authorization/roleDefinitions/{READER}"
        for one in (
            request("PUT", "{identities}/{new}", body={}), request("DELETE", "{identities}/{new}"),
            request("GET", self.GROUP),
            request("PUT", f"{role}/{{guid}}", body={}), request("GET", f"{role}?$filter=roleName eq 'Reader'"),
            request("GET", public), request("GET", "/metadata/endpoints"), request("GET", f"{self.GROUP[:-7]}{{absent}}/x"),
        ):
            self.assertIsNone(replay.skipped(document(one), ()), one)

    def test_names_what_would_reach_outside(self):
        subscription = "/subscriptions/{subscription}"
        for one in (
            request("DELETE", self.GROUP), request("PUT", self.GROUP.lower(), body={}), request("DELETE", subscription),
            request("PUT", f"{subscription}/resourceGroups/{{new}}", body={}), request("GET", subscription),
            request("PUT", f"{subscription}/resourceGroups/other/x", body={}), request("DELETE", f"{self.GROUP}x/y"),
            request("PUT", f"{self.GROUP}/../other/x", body={}), request("PUT", f"{self.GROUP}/%2E./other/x", body={}),
            request("PUT", f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/{{guid}}", body={}),
            request("GET", f"{subscription}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"),
        ):
            self.assertRegex(replay.skipped(document(one), ()) or "", "outside of the resource group", one)

    def test_says_why(self):
        get = request("GET", "{identities}/{new}")
        burst = {"burst": get, "count": 2, "expect": {"last": {"status": 429}}}
        parallel = {"parallel": [get], "expect": {"oneOf": [200], "others": {"status": 409}}}
        definitions = f"{self.GROUP}/providers/Microsoft.Authorization/roleDefinitions"
        for one, expected in (
            (document(steps=[{"manual": "x"}]), "nothing to ask"),
            (document(get, steps=[burst]), "--include bursts"),
            (document(steps=[{"change": {"lock": "{identities}"}}, burst]), "--include locks"),
            (document(steps=[{"change": {"denyPolicy": "/"}}, burst]), "a policy definition"),
            (document(steps=[parallel]), "chance"),
            (document(get, given={"propagationSeconds": 1}), "can't be chosen"),
            (document(request("GET", "/x", auth={"rights": "none"})), "other rights"),
            (document(request("GET", "/subscriptions/{otherSubscription}/x")), "another tenant"),
            (document(get, given={"unregisteredProviders": ["x"]}), "not registered"),
            (document(request("GET", definitions)), "lists what others made"),
            (document({"token": {"assertion": {}}}), "needs an issuer"),
        ):
            self.assertRegex(replay.skipped(one, ()) or "", expected)
        self.assertIsNone(replay.skipped(document(steps=[burst]), ("bursts",)))

    def test_leaves_what_entra_answers_without_keys(self):
        token = {"request": {"token": {"assertion": {}}}}
        known = {**token, "expect": {"status": 401, "aadsts": {"code": 700213}}}
        late = {**token, "expect": {"status": 401, "aadsts": {"code": 7000272}}}
        trust = {"issuer": "{issuer.unreachable}", "subject": "s"}
        self.assertIsNone(replay.skipped(document(steps=[known]), ()))
        self.assertIsNotNone(replay.skipped(document(steps=[late]), ()))
        self.assertIsNone(replay.skipped(document(steps=[late], given={"trust": trust}), ()))


class Corrections(unittest.TestCase):
    def corrected(self, old, got, filled=None):
        new = replay.expectation(old, filled or old, got, scrubber())
        steps = [{"request": {"method": "GET", "path": "/"}, "expect": new}]
        self.assertEqual(case.check({"id": "a", "area": "entra", "evidence": "spec", "source": ["x"], "steps": steps}), [])
        return new

    def test_replace_only_what_was_wrong(self):
        body = {"id": "@guid", "name": "a", "tags": {}}
        old = {"status": [200, 201], "body": body, "exact": True, "headers": {"etag": "@any"}}
        got = answer({"id": OTHER, "name": f"of {TENANT}", "more": OTHER}, 201, etag="1")
        body = {"id": "@guid", "name": "of {tenant}", "more": "@guid"}
        self.assertEqual(self.corrected(old, got), {**old, "body": body})

    def test_of_headers(self):
        old = {"status": 200, "headers": {"location": "@absent", "remaining": "@absent", "etag": "@any"}}
        new = self.corrected(old, answer(location=f"/x/{SUBSCRIPTION}", remaining="249"))
        expected = {"location": "/x/{subscription}", "remaining": "@digits", "etag": "@absent"}
        self.assertEqual(new, {"status": 200, "headers": expected})

    def test_of_errors(self):
        old = {"status": 404, "error": {"code": ["A", "B"], "message": "No <any>."}}
        got = answer({"error": {"code": "C", "message": "No such thing."}}, 404)
        self.assertEqual(self.corrected(old, got), {"status": 404, "error": {"code": "C", "message": "No <any>."}})
        got = answer({"error": {"code": "B", "message": f"Not {OTHER}"}}, 409)
        expected = {"status": 409, "error": {"code": "B", "message": "Not <guid>"}}
        self.assertEqual(self.corrected(old, got), expected)

    def test_of_entra(self):
        ids = f" Trace ID: {OTHER} Correlation ID: {OTHER} Timestamp: 2026-01-18 00:16:16Z"
        body = {"error": "invalid_client", "error_codes": [7], "error_description": f"AADSTS7: Not {OTHER}.{ids}"}
        expected = {"status": 401, "aadsts": {"code": 7, "error": "invalid_client", "message": "Not <guid>."}}
        self.assertEqual(self.corrected({"status": 401, "aadsts": {"code": 8}}, answer(body, 401)), expected)
        self.assertEqual(self.corrected({"status": 200, "body": {}}, answer(body, 401)), expected)

    def test_of_success_where_failure_was_expected(self):
        old = {"status": 404, "error": {"code": "A"}}
        self.assertEqual(self.corrected(old, answer()), {"status": 200, "bodyEmpty": True})
        self.assertEqual(self.corrected(old, answer({"a": OTHER})), {"status": 200, "body": {"a": "@guid"}, "exact": True})
        self.assertEqual(self.corrected(old, answer("<html>")), {"status": 200})


class ScriptedEndpoint(azure.PoliteEndpoint):
    """Without a network: each answer is a status, or an exception."""

    def __init__(self, *answers):
        self.slept = []
        self.noted = []
        note = lambda method, target, got: self.noted.append(got and got.status)  # noqa: E731
        super().__init__("https://x", ssl.create_default_context(), azure.Pace(0), note, self.slept.append)
        self.answers = list(answers)

    def run(self, method="GET"):
        def send(_self, *_):
            got = self.answers.pop(0)
            if isinstance(got, Exception):
                raise got
            return got

        with mock.patch.object(Endpoint, "send", send):
            return self.send(method, "/x", {}).status


class Patience(unittest.TestCase):
    def test_waits_as_long_as_azure_asks(self):
        endpoint = ScriptedEndpoint(answer(status=429, retry_after="7"), answer(status=429), answer(status=200))
        self.assertEqual(endpoint.run("PUT"), 200)
        self.assertEqual(endpoint.slept, [7.0, azure.USUAL_PAUSE_SECONDS])

    def test_has_limits(self):
        self.assertEqual(azure.retry_after(answer(status=429, retry_after="86400")), azure.LONGEST_PAUSE_SECONDS)
        with self.assertRaisesRegex(Failure, "429"):
            ScriptedEndpoint(*[answer(status=429)] * azure.TRIES).run()

    def test_repeats_only_what_changes_nothing(self):
        self.assertEqual(ScriptedEndpoint(Failure("lost"), answer(status=503), answer()).run(), 200)
        for trouble in (Failure("lost"), answer(status=503)):
            endpoint = ScriptedEndpoint(trouble, answer())
            with self.assertRaises(Failure):
                endpoint.run("PUT")
            self.assertEqual(len(endpoint.answers), 1)

    def test_can_be_off(self):
        endpoint = ScriptedEndpoint(answer(status=429))
        endpoint.is_patient = False
        self.assertEqual(endpoint.run(), 429)


class ThePace(unittest.TestCase):
    def test_is_kept_between_requests(self):
        slept = []
        pace = azure.Pace(5)
        with mock.patch.object(azure.time, "sleep", slept.append):
            for _ in range(3):
                pace.wait()
        self.assertEqual([round(seconds) for seconds in slept], [0, 5, 10])


def unsigned(**claims):
    return KEY.token(claims, {})


class TheToken(unittest.TestCase):
    def tokens(self, output, status=0, **environ):
        with mock.patch.dict(os.environ, environ):
            tokens = azure.Tokens("tool --json 'an argument'")
        self.ran = []

        def run(words, **options):
            self.ran.append(words)
            return mock.Mock(returncode=status, stdout=output)

        patched = mock.patch.object(azure.subprocess, "run", run)
        patched.start()
        self.addCleanup(patched.stop)
        return tokens

    def test_is_what_a_command_prints(self):
        token = unsigned(tid=TENANT, exp=time.time() + 3600)
        documents = [json.dumps(one) for one in ({"accessToken": token}, {"token": token}, token)]
        for output in (token, f"{token}\n", *documents):
            tokens = self.tokens(output)
            self.assertEqual((tokens.current(), tokens.current()), (token, token))
            self.assertEqual(self.ran, [["tool", "--json", "an argument"]])

    def test_is_renewed_in_time(self):
        tokens = self.tokens(unsigned(tid=TENANT, exp=time.time() + 60))
        tokens.current()
        tokens.current()
        self.assertEqual(len(self.ran), 2)

    def test_can_be_in_the_environment(self):
        tokens = self.tokens("", **{azure.TOKEN_VARIABLE: "mine"})
        self.assertEqual((tokens.current(), self.ran), ("mine", []))

    def test_is_not_shown_if_the_command_fails(self):
        for output, status in ((unsigned(tid=TENANT), 1), (unsigned(sub="no tenant"), 0), ("", 0), ('["x"]', 0)):
            with self.assertRaises(Failure) as caught:
                self.tokens(output, status).current()
            self.assertNotIn("eyJ", str(caught.exception))


class FakeTarget:
    """Answers requests about the group with statuses, in order; the last one stays."""

    subscription, location = SUBSCRIPTION, "westeurope"

    def __init__(self, left=(), **statuses):
        self.left = list(left)
        self.statuses = {method: list(given) for method, given in statuses.items()}
        self.asked = []

    def request(self, method, path, version, body=None):
        self.asked.append(method)
        given = self.statuses[method]
        status = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(status, BaseException):
            raise status
        return answer({"error": {"code": "X"}} if status >= 400 else {}, status)

    def remove_made(self):
        self.asked.append("made")
        return self.left


class TheGroup(unittest.TestCase):
    def run_in(self, target, act=lambda: None):
        self.said = []
        with record.ResourceGroup(target, "g", self.said.append, lambda _: None):
            act()

    def test_is_removed_after_everything_else_that_was_made(self):
        target = FakeTarget(GET=[404, 200, 200, 404], PUT=[201], DELETE=[202])
        self.run_in(target)
        self.assertEqual(target.asked, ["GET", "PUT", "made", "DELETE", "GET", "GET", "GET"])

    def test_is_removed_whatever_happens(self):
        for error in (KeyboardInterrupt(), Failure("x"), RuntimeError("x")):
            target = FakeTarget(GET=[404], PUT=[201], DELETE=[200])
            with self.assertRaises(type(error)):
                self.run_in(target, mock.Mock(side_effect=error))
            self.assertEqual(target.asked[-1], "DELETE")

    def test_is_removed_if_nobody_knows_whether_it_was_made(self):
        for error in (KeyboardInterrupt(), Failure("lost")):
            target = FakeTarget(GET=[404], PUT=[error], DELETE=[404])
            with self.assertRaises(type(error)):
                self.run_in(target)
            self.assertEqual(target.asked[-1], "DELETE")

    def test_of_somebody_else_is_left_alone(self):
        for target in (FakeTarget(GET=[200]), FakeTarget(GET=[404], PUT=[403])):
            with self.assertRaises(Failure):
                self.run_in(target)
            self.assertNotIn("DELETE", target.asked)

    def test_is_removed_again_until_that_works(self):
        target = FakeTarget(GET=[404, Failure("lost"), 404], PUT=[201], DELETE=[Failure("lost"), 409, 202])
        self.run_in(target)
        self.assertEqual(target.asked.count("DELETE"), 3)

    def test_that_stays_is_named_with_the_command_that_removes_it(self):
        with mock.patch.object(record, "REMOVAL_SECONDS", 0.05):
            lost, slow = {"DELETE": [Failure("lost")]}, {"DELETE": [202], "GET": [404, 200]}
            for statuses in ({"DELETE": [403]}, {"DELETE": [409]}, lost, slow):
                with self.assertRaisesRegex(Failure, "not everything was removed"):
                    self.run_in(FakeTarget(**{"GET": [404], "PUT": [201], **statuses}))
                self.assertIn(f"az group delete --yes --name g --subscription {SUBSCRIPTION}", "\n".join(self.said))

    def test_leaves_nothing_else_unnamed(self):
        with self.assertRaisesRegex(Failure, "not everything was removed"):
            self.run_in(FakeTarget(left=["/role"], GET=[404], PUT=[201], DELETE=[200]))
        self.assertIn("az resource delete --ids '/role'", "\n".join(self.said))


class WhatWasMade(unittest.TestCase):
    ROLE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Authorization/roleDefinitions/r"

    def made(self, *notes):
        with mock.patch.dict(os.environ, {azure.TOKEN_VARIABLE: unsigned(tid=TENANT)}):
            target = azure.AzureTarget("https://a", "https://b", "s", "l", "g", azure.Tokens("x"), 0)
        for method, path, status in notes:
            target._note(method, f"{path}?api-version=2022-04-01", status and answer(status=status))
        return target.made

    def test_is_remembered_until_it_is_removed(self):
        sent, gone = ("PUT", self.ROLE, None), ("DELETE", self.ROLE, 200)
        for notes, is_made in (
            ([sent], True), ([sent, ("PUT", self.ROLE, 201)], True), ([sent, ("PUT", self.ROLE, 500)], True),
            ([sent, ("PUT", self.ROLE, 409)], False), ([sent, ("PUT", self.ROLE, 201), gone], False),
            ([sent, ("PUT", self.ROLE, 201), sent, ("PUT", self.ROLE, 400)], True),
            ([sent, ("PUT", self.ROLE, 201), ("DELETE", self.ROLE, 403)], True),
            ([("GET", self.ROLE, 200)], False),
        ):
            self.assertEqual(self.made(*notes), {self.ROLE: "2022-04-01"} if is_made else {}, notes)

    def test_is_removed_in_several_rounds_if_need_be(self):
        with mock.patch.dict(os.environ, {azure.TOKEN_VARIABLE: unsigned(tid=TENANT)}):
            target = azure.AzureTarget("https://a", "https://b", "s", "l", "g", azure.Tokens("x"), 0)
        for statuses, left in (([403, 200], []), ([Failure("lost"), 204], []), ([403] * 3, [self.ROLE]), ([404], [])):
            target.made, asked = {self.ROLE: "2022-04-01"}, []

            def request(method, path, version):
                status = statuses[len(asked)]
                asked.append(method)
                if isinstance(status, Failure):
                    raise status
                target._note(method, f"{path}?api-version={version}", answer(status=status))

            with mock.patch.object(target, "request", request):
                self.assertEqual(target.remove_made(lambda _: None), left)
            self.assertEqual(len(asked), len(statuses))

    def test_in_the_group_goes_with_it(self):
        path = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"
        self.assertEqual(self.made(("PUT", path, None), ("PUT", path, 201)), {})


class WhatIsHidden(unittest.TestCase):
    def settings(self, **more):
        usual = {
            "arm": "https://management.azure.com", "authority": "https://login.microsoftonline.com/",
            "subscription": SUBSCRIPTION, "location": "eastus", "folder": Path("x"), "include": (), "pace_seconds": 0,
            "settle_seconds": 0,
        }
        return record.Settings(**{**usual, **more})

    def hidden(self, settings):
        with mock.patch.dict(os.environ, {azure.TOKEN_VARIABLE: unsigned(tid=TENANT, oid=OTHER)}):
            target = azure.AzureTarget(
                settings.arm, settings.authority, SUBSCRIPTION, "eastus", settings.group, azure.Tokens("x"), 0
            )
        return set(record._hidden(target, settings).values()), target.tokens.used

    def test_are_tokens_ids_and_the_names_of_private_servers(self):
        settings = self.settings()
        hidden, used = self.hidden(settings)
        self.assertEqual(hidden, {SUBSCRIPTION, TENANT, OTHER, settings.group, *used})
        hidden, _ = self.hidden(self.settings(arm="https://arm.contoso.example"))
        self.assertIn("arm.contoso.example", hidden)
        self.assertNotIn("contoso", record._source("https://arm.contoso.example"))
        self.assertIn("management.azure.com", record._source(settings.arm))


class AnswersOfTheCaller(unittest.TestCase):
    def test_are_no_facts_about_azure(self):
        for code in ("AuthorizationFailed", "RequestDisallowedByPolicy", "MissingSubscriptionRegistration"):
            with self.assertRaises(Failure):
                replay._require_fact(answer({"error": {"code": code}}, 403))
        replay._require_fact(answer({"error": {"code": "Conflict"}}, 409))
        replay._require_fact(answer("<html>", 403))


if __name__ == "__main__":
    unittest.main()
