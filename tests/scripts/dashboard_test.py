"""contrib/grafana/trellis.json: Grafana can lay it out, and what it asks for is what src/server/metrics.cc writes."""

import itertools
import json
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "contrib/grafana/trellis.json").read_text())


def exposed():
    """The names of all samples, as the calls that write them name them."""
    source = (ROOT / "src/server/metrics.cc").read_text()
    names = {"trellis_" + name for name in re.findall(r'(?:Counter|Gauge|Head)\(\s*(?:"counter",\s*)?"(\w+)"', source)}
    for histogram in re.findall(r'Print\(\s*"(\w+)"', source):
        names |= {"trellis_" + histogram + suffix for suffix in ("_bucket", "_sum", "_count")}
    return names


def graphs():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


class DashboardTest(unittest.TestCase):
    def test_every_metric_exists(self):
        names = exposed()
        self.assertGreater(len(names), 40)
        queries = [target["expr"] for panel in graphs() for target in panel["targets"]]
        queries += [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]
        self.assertGreater(len(queries), 30)
        for query in queries:
            asked = set(re.findall(r"\btrellis_\w+", query))
            self.assertTrue(asked, query)
            self.assertLessEqual(asked, names, query)

    def test_the_variables_are_declared(self):
        declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
        self.assertEqual(used, declared | {"__rate_interval"})

    def test_panels_have_their_own_place(self):
        ids = [panel["id"] for panel in DASHBOARD["panels"]]
        self.assertEqual(len(set(ids)), len(ids))
        for a, b in itertools.combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
            apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            self.assertTrue(apart, (a, b))
        for panel in DASHBOARD["panels"]:
            self.assertLessEqual(panel["gridPos"]["x"] + panel["gridPos"]["w"], 24)


if __name__ == "__main__":
    unittest.main()
