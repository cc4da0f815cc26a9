"""What people watch a server with: /metrics as Prometheus reads it, the dashboard, the tree of the cache."""

import json
import pathlib

import promql_parser
from prometheus_client.parser import text_string_to_metric_families
from conftest import complete, some_tokens
from server_process import Server

ROOT = pathlib.Path(__file__).parents[2]


def families(server):
    _, body = server.open("/metrics")
    found = list(text_string_to_metric_families(body.decode()))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def samples(server):
    """(name, label value or None) -> value"""
    found = {}
    for family in families(server).values():
        for sample in family.samples:
            key = (sample.name.removeprefix("trellis_"), *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def test_prometheus_reads_the_metrics(server):
    for name, family in families(server).items():
        assert name.startswith("trellis_") and family.documentation and family.samples, name
        assert family.type in ("counter", "gauge", "histogram"), name
        if family.type == "histogram":
            buckets = [sample for sample in family.samples if sample.name.endswith("_bucket")]
            bounds = [float(sample.labels["le"]) for sample in buckets]
            counts = [sample.value for sample in buckets]
            assert bounds == sorted(bounds) and bounds[-1] == float("inf") and counts == sorted(counts), name
            assert [s.value for s in family.samples if s.name.endswith("_count")] == counts[-1:], name


def test_vllms_names_mean_what_they_mean_there(fresh):
    before = samples(fresh)
    prompt = some_tokens("metrics", 90)
    complete(fresh, prompt, max_tokens=4)
    complete(fresh, prompt, max_tokens=4)
    complete(fresh, prompt, max_tokens=4, cache_prompt=False)
    stopped = complete(fresh, prompt + some_tokens("more", 10), max_tokens=8)["choices"][0]["text"][-3:]
    again = complete(fresh, prompt + some_tokens("more", 10), max_tokens=2000, stop=[stopped])
    assert again["choices"][0]["finish_reason"] == "stop"
    after = samples(fresh)
    grown = {key: value - before[key] for key, value in after.items()}
    assert grown["prompt_tokens_total",] == 3 * 90 + 2 * 100
    assert grown["prompt_tokens_cached_total",] == 89 + 90 + 99
    assert grown["computed_tokens_total",] == 90 + 1 + 90 + 10 + 1
    assert grown["abandoned_tokens_total",] == 0
    assert sum(grown["missed_tokens_total", cause] for cause in ("disabled", "cold", "evicted", "diverged", "new_tokens")) == 192
    # Who declines the cache asks nothing of it.
    assert grown["prefix_cache_queries_total",] == 2 * 90 + 2 * 100
    assert grown["prefix_cache_hits_total",] == 89 + 90 + 99
    assert grown["request_success_total", "length"] == 4 and grown["request_success_total", "stop"] == 1
    assert grown["request_success_total", "abort"] == grown["request_success_total", "error"] == 0
    assert grown["requests_total",] == grown["e2e_request_latency_seconds_count",] == grown["request_queue_time_seconds_count",] == 5
    assert grown["time_to_first_token_seconds_count",] == 5
    assert grown["time_to_first_token_seconds_count",] + grown["inter_token_latency_seconds_count",] == grown["generation_tokens_total",]
    assert grown["request_prompt_tokens_sum",] == grown["prompt_tokens_total",]
    assert grown["request_prefill_kv_computed_tokens_sum",] == grown["computed_tokens_total",]
    assert after["num_requests_running",] == after["num_requests_waiting",] == after["kv_cache_usage_perc",] == 0
    assert after["cache_pages_committed",] + after["cache_pages_free",] == after["cache_pages_capacity",]
    with fresh.send("/v1/completions", {"prompt": prompt, "max_tokens": 4000, "ignore_eos": True}):
        fresh.wait_for_a_lease()
        running = samples(fresh)
        assert running["num_requests_running",] == running["cache_leases",] == 1
        in_use = running["cache_pages_pinned",] + running["cache_pages_private",]
        assert running["kv_cache_usage_perc",] == in_use / running["cache_pages_capacity",] > 0


def test_the_dashboard_asks_for_what_the_server_says(server):
    labels = {}
    for family in families(server).values():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    dashboard = json.loads((ROOT / "contrib/grafana/trellis.json").read_text())
    asked = set()

    def check(node, query):
        kind = type(node).__name__
        if kind == "VectorSelector":
            assert node.name in labels, query
            asked.add(node.name)
            return labels[node.name]
        if kind == "AggregateExpr":
            below = check(node.expr, query)
            by = set(node.modifier.labels) if node.modifier else set()
            assert by <= below, query
            return by
        parts = {
            "Call": lambda: node.args,
            "BinaryExpr": lambda: [node.lhs, node.rhs],
            "MatrixSelector": lambda: [node.vector_selector],
            "NumberLiteral": lambda: [],
        }
        return set().union(*(check(part, query) for part in parts[kind]()))

    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            left = check(promql_parser.parse(query), query)
            assert "histogram_quantile" not in query or "le" in left, query
            # A legend that names a label has to get it.
            assert "{{" not in target["legendFormat"] or target["legendFormat"].strip("{}") in left, query
    assert len(asked) > 25


def test_the_tree_shows_what_is_cached_and_text_to_its_owner(fresh):
    def text(answer):
        return "".join(node.get("text", "") for node in answer["nodes"])

    def ask(question, **more):
        messages = [{"role": "system", "content": "You are a clock."}, {"role": "user", "content": question}]
        status, answer = fresh.post("/v1/chat/completions", {"messages": messages, "max_tokens": 4, **more})
        assert status == 200, answer

    for question in ("Half past ten?", "Noon?"):
        ask(question)
        ask("Mine: " + question, cache_salt="a secret")
    tree = fresh.get("/v1/cache/tree")
    assert len(tree["nodes"]) == tree["total"]["nodes"] == 8 and tree["hidden"] == {"nodes": 0, "pages": 0}
    assert sum(node["pages"] for node in tree["nodes"]) == tree["total"]["pages"] == fresh.pages()["committed"]
    by_id = {node["id"]: node for node in tree["nodes"]}
    for node in tree["nodes"]:
        assert node["children"] == sum(other["parent"] == node["id"] for other in tree["nodes"])
        if node["parent"] is not None:
            parent = by_id[node["parent"]]
            assert node["begin"] == parent["begin"] + parent["tokens"] and node["scope"] == parent["scope"]
    assert "secret" not in json.dumps(tree) and text(tree) == "" and tree["own_scope"] is None
    mine = fresh.get("/v1/cache/tree?cache_salt=a+secret")
    assert "You are a clock" in text(mine) and "Mine" in text(mine)
    assert {node["scope"] for node in mine["nodes"] if "text" in node} == {mine["own_scope"]}

    some = fresh.get("/v1/cache/tree?limit=3&depth=1")
    assert len(some["nodes"]) == 3 and some["hidden"]["nodes"] == 5
    assert fresh.post("/v1/cache/tree", {})[0] == 405
    assert fresh.open("/v1/cache/tree?limit=5001")[0] == 400
    with fresh.send("/v1/completions", {"prompt": some_tokens("tree", 50), "max_tokens": 4000, "ignore_eos": True}):
        fresh.wait_for_a_lease()
        first = fresh.get("/v1/cache/tree?limit=1")["nodes"][0]
        assert first["leases"] == 1 and first["age"] == 0
    fresh.settle()


def test_a_log_in_json_is_nothing_else():
    with Server("--kv-cache", "64MiB", "--ctx-size", "8192", "--log-format", "json") as server:
        answer = complete(server, some_tokens("json", 40))
        assert server.post("/v1/completions", {"prompt": "x", "top_p": 7})[0] == 400
        assert server.stop() == 0
        server.reader.join()
        lines = [json.loads(line) for line in server.log]
    events = {line["event"]: line for line in lines}
    assert {"warning", "listening", "answer", "refused", "stopping"} <= events.keys(), events
    assert "the KV cache holds" in events["warning"]["message"]
    assert events["answer"]["id"] == answer["id"] and events["answer"]["prompt_tokens"] == 40
    assert events["refused"]["status"] == 400 and events["refused"]["param"] == "top_p"
    types = {}
    for line in lines:
        assert line["time"].endswith("Z") and line["level"] in ("info", "warning", "error")
        for name, value in line.items():
            assert types.setdefault(name, type(value)) is type(value), name
