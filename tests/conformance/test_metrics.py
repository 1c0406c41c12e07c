"""/metrics, the alert rules and the dashboard, checked by Prometheus' own tools."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import httpx
from prometheus_client.parser import text_string_to_metric_families

import speak

DIST = pathlib.Path(__file__).parents[2] / "dist"

# The metrics of the contract, with the labels that each may have.
NAMES = {
    "speak_clients": ("gauge", set()),
    "speak_readers": ("gauge", set()),
    "speak_channels": ("gauge", set()),
    "speak_connections": ("gauge", set()),
    "speak_messages_retained": ("gauge", set()),
    "speak_memory_bytes": ("gauge", set()),
    "speak_requests": ("counter", {"call", "status"}),
    "speak_messages": ("counter", {"type"}),
    "speak_deliveries": ("counter", set()),
    "speak_goodbyes": ("counter", {"reason"}),
    "speak_clients_refused": ("counter", {"reason"}),
    "speak_history_dropped": ("counter", {"reason"}),
    "speak_loop_seconds": ("histogram", {"le"}),
    "process_cpu_seconds": ("counter", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_virtual_memory_bytes": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_max_fds": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
}


def promtool(*arguments, text=None):
    """Runs promtool. An error or warning fails the test."""
    done = subprocess.run(
        [os.environ["PROMTOOL"], *arguments], input=text, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    if done.returncode:
        raise AssertionError(f"promtool {' '.join(map(str, arguments))}: {said}")
    return said


def block_of_debian(name):
    """Returns the block of docs/debian.md after the comment with this name."""
    page = (DIST.parent / "docs" / "debian.md").read_text()
    _, _, rest = page.partition(f"<!-- {name}: ")
    _, _, rest = rest.partition("```yaml\n")
    return rest.partition("```\n")[0]


class Configuration(unittest.TestCase):
    def test_the_page_for_debian_has_a_valid_configuration(self):
        with tempfile.TemporaryDirectory() as folder:
            text = block_of_debian("prometheus")
            self.assertIn("job_name: speak", text)
            rules = "/etc/prometheus/speak-alerts.yml"
            self.assertIn(rules, text)
            path = pathlib.Path(folder) / "prometheus.yml"
            path.write_text(text.replace(rules, str(DIST / "alerts.yml")))
            self.assertIn("SUCCESS: 1 rule files found", promtool("check", "config", path))


class Metrics(unittest.TestCase):
    def setUp(self):
        self.server = speak.Server("--admin-listen", "127.0.0.1:0", "--connection-timeout", "100ms")
        self.addCleanup(self.server.stop)

    def page(self):
        answer = httpx.get(
            f"http://127.0.0.1:{self.server.admin_port}/metrics",
            timeout=speak.GUARD,
            trust_env=False,
        )
        answer.raise_for_status()
        return answer.text

    def pages(self):
        """Returns the page of a fresh server, and one after calls of every kind."""
        yield self.page()
        self.server.call("write", channel="channel", message="message")
        self.server.call("introduce", channel="channel", message="a user")
        self.server.http.get("/write")
        # Ends with the goodbye of a connection that timed out.
        self.server.call("read", channel="channel", from_id=3)
        yield self.page()

    def test_every_name_is_read_with_its_type_and_labels(self):
        for page in self.pages():
            families = {family.name: family for family in text_string_to_metric_families(page)}
            for name, (kind, labels) in NAMES.items():
                family = families[name]
                self.assertEqual(family.type, kind, name)
                self.assertTrue(family.documentation, name)
                for sample in family.samples:
                    self.assertLessEqual(set(sample.labels), labels, name)
                    self.assertGreaterEqual(sample.value, 0, name)
        values = {
            (s.name, *s.labels.values()): s.value
            for family in families.values()
            for s in family.samples
        }
        self.assertEqual(values["speak_messages_total", "message"], 1)
        self.assertEqual(values["speak_messages_total", "introduction"], 1)
        self.assertEqual(values["speak_goodbyes_total", "timeout"], 1)
        self.assertEqual(values["speak_requests_total", "write", "200"], 1)
        self.assertEqual(values["speak_requests_total", "write", "400"], 1)
        self.assertEqual(values["speak_deliveries_total",], 1)

    def test_promtool_accepts_the_pages(self):
        for page in self.pages():
            self.assertEqual(promtool("check", "metrics", text=page), "")

    def test_promtool_rejects_a_faulty_page(self):
        with self.assertRaises(AssertionError):
            promtool(
                "check",
                "metrics",
                text=self.page().replace(
                    "# TYPE speak_clients gauge", "# TYPE speak_clients counter"
                ),
            )

    def test_rules_and_dashboard_use_only_existing_metrics(self):
        known = set()
        for family in text_string_to_metric_families(self.page()):
            known.add(family.name + ("_total" if family.type == "counter" else ""))
            if family.type == "histogram":
                known.update(family.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        dashboard = json.loads((DIST / "grafana-dashboard.json").read_text())
        texts = {"alerts": (DIST / "alerts.yml").read_text()}
        for panel in dashboard["panels"]:
            texts[panel["title"]] = " ".join(target["expr"] for target in panel["targets"])
        texts["variables"] = json.dumps(dashboard["templating"])
        texts["annotations"] = json.dumps(dashboard["annotations"])
        for place, text in texts.items():
            named = set(re.findall(r"\b(?:speak|process)_[a-z_]+", text))
            self.assertTrue(named, place)
            self.assertLessEqual(named, known, place)

    def test_promtool_reads_every_expression_of_the_dashboard(self):
        dashboard = json.loads((DIST / "grafana-dashboard.json").read_text())
        expressions = [
            target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
        ]
        expressions += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
        rules = []
        for place, expression in enumerate(expressions):
            # Grafana replaces these variables.
            expression = (
                expression.replace("$__rate_interval", "1m")
                .replace("$job", "speak")
                .replace("$instance", ".*")
            )
            rules.append({"record": f"panel:{place}", "expr": expression})
        # JSON is YAML too.
        with speak.scratch(
            "rules.yml", json.dumps({"groups": [{"name": "dashboard", "rules": rules}]})
        ) as path:
            self.assertIn(f"{len(rules)} rules found", promtool("check", "rules", path))

    def test_every_alert_fires(self):
        self.assertIn("rules found", promtool("check", "rules", DIST / "alerts.yml"))
        here = pathlib.Path(__file__).parent
        self.assertIn("SUCCESS", promtool("test", "rules", here / "alerts_test.yml"))
        rules = set(re.findall(r"alert: (\w+)", (DIST / "alerts.yml").read_text()))
        tried = set(re.findall(r"alertname: (\w+)", (here / "alerts_test.yml").read_text()))
        self.assertEqual(rules, tried)
