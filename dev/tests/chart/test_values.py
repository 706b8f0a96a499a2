"""The values that the chart accepts and rejects, without a cluster."""

import json
import re
import tempfile
import unittest
from pathlib import Path

import chart_values
from chart_values import LEAST, RELEASE, SETS, template
from ensign_dev import paths

SCHEMA = json.loads((paths.CHART / "values.schema.json").read_text())
SET = {
    "image.repository": "registry.example/ensign",
    "azure.tenantID": "7e000000-0000-4000-8000-00000000007e",
    "azure.clientID": "c11e0000-0000-4000-8000-000000000001",
}
# Values, and what the error message has to contain.
INVALID = [
    ({"image.repositry": "x"}, "'repositry' not allowed"),
    ({"azure.tenantId": SET["azure.tenantID"]}, "'tenantId' not allowed"),
    ({"controler.replicas": "3"}, "'controler' not allowed"),
    ({"webhook.certificates.secret": "x"}, "'/webhook/certificates'"),
    ({"monitoring.serviceMonitor.enable": "true"}, "'enable' not allowed"),
    ({"controller.resources.limit.memory": "1Gi"}, "'limit' not allowed"),
    ({"azure.tenantID": "contoso"}, "'/azure/tenantID'"),
    ({"azure.clientID": "orders"}, "'/azure/clientID'"),
    ({"azure.cloud": "germany"}, "'/azure/cloud'"),
    ({"azure.allowedScopes[0]": "resourceGroups/team"}, "'/azure/allowedScopes/0'"),
    ({"azure.apiVersions.managedIdentity": "latest"}, "'/azure/apiVersions/managedIdentity'"),
    ({"azure.rateShare": "0"}, "'/azure/rateShare'"),
    ({"azure.armEndpoint": "http://arm.example"}, "'/azure/armEndpoint'"),
    ({"injection.mode": "sidecar"}, "'/injection/mode'"),
    ({"controller.replicas": "0"}, "'/controller/replicas'"),
    ({"controller.extraArgs[0]": "webhook"}, "'/controller/extraArgs/0'"),
    ({"gatePods": "maybe"}, "'/gatePods'"),
    ({"azure.driftCheckInterval": "900"}, "'/azure/driftCheckInterval'"),
    ({"azure.driftCheckInterval": "9s"}, "azure.driftCheckInterval must be 10s to 24h, not 9s"),
    ({"azure.propagationDelay": "1h1ms"}, "azure.propagationDelay must be 0s to 1h"),
    ({"controller.leaseDuration": "2500ms"}, "'/controller/leaseDuration'"),
    ({"controller.leaseDuration": "1s"}, "controller.leaseDuration must be 2s to 10m"),
    ({"webhook.drainDuration": "-5s"}, "'/webhook/drainDuration'"),
    ({"webhook.drainDuration": "301s"}, "webhook.drainDuration must be 0s to 5m"),
    ({"teardown.timeout": "4 m"}, "'/teardown/timeout'"),
    ({"azure.tenantID": ""}, "azure.tenantID is required"),
    ({"azure.clientID": ""}, "azure.clientID is required"),
    ({"image.repository": ""}, "image.repository is required"),
    ({"azure.cloud": "custom"}, "azure.armEndpoint is required"),
    ({"azure.cloud": "custom", "azure.armEndpoint": "https://arm.example/"}, "azure.authorityHost is required"),
    ({"azure.armEndpoint": "https://arm.example/"}, "azure.armEndpoint needs azure.cloud custom"),
    ({"azure.proxy.url": "http://proxy", "azure.proxy.secretName": "proxy"}, "azure.proxy.url and"),
    ({"azure.proxy.secretName": "proxy"}, "azure.proxy.port is required"),
    ({"azure.extraCA.configMapName": "a", "azure.extraCA.secretName": "b"}, "azure.extraCA.configMapName and"),
    ({"cluster.id": "one", "cluster.previousID": "one"}, "cluster.previousID must differ"),
    ({"azureWorkloadIdentityCompat": "true", "injection.mode": "policy"}, "azureWorkloadIdentityCompat needs the webhook"),
    ({"webhook.enabled": "false"}, "webhook.enabled can be false only"),
    ({"injection.mode": "policy", "injection.policyBindings": "never"}, "injection.mode policy needs"),
    ({"webhook.certificates.secretName": "ensign-webhook-tls"}, "webhook.certificates.secretName must not be"),
]


def arguments(values):
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


class TheChart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.helm = chart_values.offline()

    def error(self, values):
        result = template(self.helm, *arguments(values))
        self.assertNotEqual(result.status, 0, f"accepted: {values}")
        return result.error

    def test_passes_the_linter_with_every_set_of_values(self):
        self.assertGreaterEqual(len(SETS), 4)
        for values in SETS:
            with self.subTest(values.name):
                output = self.helm("lint", "--strict", paths.CHART, "--values", values)
                self.assertNotRegex(output, r"\[(ERROR|WARNING)\]")

    def test_requires_three_values_and_names_all_missing_ones_at_once(self):
        answer = self.helm.try_("template", RELEASE, paths.CHART)
        self.assertNotEqual(answer.status, 0)
        for name in SET:
            self.assertIn(f"{name} is required", answer.error)
        self.assertEqual(template(self.helm).status, 0)

    def test_rejects_invalid_values_and_names_the_field(self):
        for values, message in INVALID:
            with self.subTest(str(values)):
                self.assertIn(message, self.error(values))

    def test_rejects_policies_if_the_api_server_is_too_old(self):
        old = ["--kube-version", "1.36.4", *arguments({"injection.mode": "policy"})]
        self.assertIn("policies inject from 1.37 on", template(self.helm, *old).error)
        self.assertNotEqual(template(self.helm, "--kube-version", "1.32.9").status, 0)

    def test_creates_policy_bindings_only_if_the_api_server_supports_them(self):
        for version, injection, known in (("1.36.4", "webhook", False), ("1.37.0", "auto", True)):
            rendered = template(self.helm, "--kube-version", version).out
            self.assertEqual("kind: MutatingAdmissionPolicyBinding" in rendered, known, version)
            self.assertIn(f"--injection={injection}\n", rendered)

    def test_renders_deterministically_without_a_cluster(self):
        for values in SETS:
            once, again = (template(self.helm, values=values) for _ in range(2))
            self.assertEqual(once.status, 0, once.error)
            self.assertEqual(once.out, again.out)
        for file in (paths.CHART / "templates").rglob("*"):
            if file.is_file():
                text = file.read_text()
                functions = r"\{\{[^}]*\b(lookup|genCA|genSelfSignedCert|genSignedCert|genPrivateKey|rand\w+|uuidv4|now|getHostByName)\b"
                self.assertIsNone(re.search(functions, text), f"{file.name} is not deterministic")

    def test_has_no_hooks_by_default(self):
        self.assertNotIn("helm.sh/hook", template(self.helm).out)

    def test_sets_no_field_that_is_filled_in_at_run_time(self):
        filled = {
            "kind: MutatingWebhookConfiguration": ("webhooks:",), "kind: Secret": ("data:", "stringData:"),
            "kind: Lease": ("spec:",),
        }
        for values in SETS:
            rendered = template(self.helm, values=values).out
            for policy in ("MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"):
                for document in chart_values.documents(rendered):
                    if re.search(rf"^kind: {policy}$", document, re.MULTILINE):
                        name = re.search(r"^  name: (\S+)$", document, re.MULTILINE).group(1)
                        self.assertIn(name, ("limit-controller.ensign.dev", "namespace-labels.ensign.dev"))
            for document in chart_values.documents(rendered):
                for kind, fields in filled.items():
                    if re.search(rf"^{kind}$", document, re.MULTILINE):
                        for field in fields:
                            self.assertNotRegex(document, rf"(?m)^{field}")

    def test_keeps_the_crds_and_does_not_label_them(self):
        crds = [one for one in chart_values.documents(template(self.helm).out) if "\nkind: CustomResourceDefinition" in one]
        self.assertEqual(len(crds), len(list((paths.ROOT / "crds").glob("*.yaml"))))
        for crd in crds:
            self.assertIn("helm.sh/resource-policy: keep", crd)
            self.assertIn("Prune=false,Delete=false", crd)
            self.assertNotIn("app.kubernetes.io/", crd)


class TheSchema(unittest.TestCase):
    def objects(self, schema=SCHEMA, path=""):
        if schema.get("type") == "object":
            yield path, schema
        for name, below in {**schema.get("properties", {}), **schema.get("definitions", {})}.items():
            yield from self.objects(below, f"{path}/{name}")
        if "items" in schema:
            yield from self.objects(schema["items"], f"{path}/items")

    def test_allows_unknown_keys_only_in_kubernetes_own_types(self):
        kubernetes = re.compile(
            r"/(global|affinity|tolerations/items|topologySpreadConstraints/items|metricsFrom/items|extraEgress/items"
            r"|claims/items|valueFrom)$"
        )
        for path, schema in self.objects():
            if "properties" in schema:
                self.assertIs(schema.get("additionalProperties"), False, path)
            elif isinstance(schema.get("additionalProperties"), dict):
                self.assertIn("type", schema["additionalProperties"], path)
            else:
                self.assertRegex(path, kubernetes)

    def test_describes_exactly_the_existing_values(self):
        values = chart_values.defaults(chart_values.offline())

        def compare(schema, value, path):
            properties = schema.get("properties", {})
            self.assertEqual(set(properties) - {"global"}, set(value), path)
            for name, below in value.items():
                wanted = properties[name]
                if "$ref" not in wanted and "properties" in wanted:
                    compare(wanted, below, f"{path}.{name}")

        compare(SCHEMA, values, "values")


class TheDocumentation(unittest.TestCase):
    def test_lists_each_value_with_its_default(self):
        text = (paths.ROOT / "docs" / "install.md").read_text()
        rows = dict(re.findall(r"^\| `([A-Za-z0-9_.]+)` \| (.*?) \|", text, re.MULTILINE))
        values = chart_values.keys(chart_values.defaults(chart_values.offline()))
        self.assertEqual(sorted(rows), sorted(values), "the table of docs/install.md and values.yaml differ")
        for name, value in values.items():
            shown = rows[name].strip("`")
            self.assertEqual(shown, as_shown(value), name)


def as_shown(value):
    """Returns a default as it is shown in the table."""
    if value in ("", [], {}, None):
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return json.dumps(value) if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    unittest.main()
