"""What /openapi.json says is true of the server: for requests made up from it, right and wrong, and field by field."""

import json
import pathlib

import jsonschema_rs
import pytest
import schemathesis
from schemathesis.checks import CheckContext
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from server_process import MODEL

DOCUMENT = pathlib.Path(__file__).parents[2] / "src/server/openapi.json"
CONFIG = {"generation": {"max-examples": 6, "deterministic": True, "database": "none"}}
schema = schemathesis.openapi.from_path(DOCUMENT, config=schemathesis.Config.from_dict(CONFIG))
MOST_TOKENS = 4


def items_of(media_type, text):
    """The JSON of a stream."""
    if media_type == "application/x-ndjson":
        return [json.loads(line) for line in text.splitlines()]
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"]


def validator(document, part):
    return jsonschema_rs.Draft202012Validator({**part, "components": document["components"]})


def content_of(document, path, method, status):
    responses = document["paths"][path][method]["responses"]
    response = responses.get(str(status)) or responses[f"{status // 100}XX"]
    if reference := response.get("$ref"):
        response = document["components"]["responses"][reference.rsplit("/", 1)[1]]
    return response["content"]


def check_stream(document, path, media_type, text):
    """Each event is as x-itemSchema says."""
    items = items_of(media_type, text)
    assert items, "a stream says something"
    check = validator(document, content_of(document, path, "post", 200)[media_type]["x-itemSchema"])
    for item in items:
        check.validate(item)


@schemathesis.check
def stream_conformance(context: CheckContext, response, case):
    media_type = response.headers.get("content-type", [""])[0].partition(";")[0]
    if media_type in ("text/event-stream", "application/x-ndjson"):
        check_stream(case.operation.schema.raw_schema, case.operation.path, media_type, response.content.decode())


def limits_of(path):
    """The fields that limit an answer, and values of them that do not."""
    if path.startswith("/api/"):
        return ["num_predict"], [-2, -1, 0]
    if path == "/v1/responses":
        return ["max_output_tokens"], []
    if path.startswith("/v1/messages"):
        return ["max_tokens"], []
    return ["max_completion_tokens", "max_tokens", "n_predict"], [-1]


def make_short(path, body):
    """An answer as long as the context would only take time. What is wrong stays wrong."""
    names, no_limits = limits_of(path)
    holder = body
    if path.startswith("/api/"):
        if body.get("options") is None:
            body["options"] = {}
        holder = body["options"]
        if not isinstance(holder, dict):
            return
    if not path.startswith("/v1/messages") and all(holder.get(name) is None for name in names):
        holder[names[-1]] = MOST_TOKENS
    for name, low, most in [*((name, MOST_TOKENS, 2**31 - 1) for name in names), ("n", 2, 128), ("best_of", 2, 128)]:
        value = holder.get(name)
        is_whole = type(value) in (int, float) and value == int(value)
        if is_whole and (low < value <= most or (name in names and value in no_limits)):
            holder[name] = low


@schema.parametrize()
def test_made_up_requests(case, server):
    if case.headers:
        case.headers.pop("x-request-timeout", None)  # whoever wants it in a microsecond gets a 504
    if isinstance(case.body, dict):
        make_short(case.operation.path, case.body)
    case.call_and_validate(
        checks=[
            schemathesis.checks.not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
            negative_data_rejection,
            stream_conformance,
        ],
        base_url=server.url,
        timeout=120,
    )


def operations(document):
    """[path, the schema of its body, an example of it]"""
    for path, methods in document["paths"].items():
        if body := methods.get("post", {}).get("requestBody"):
            content = body["content"]["application/json"]
            yield path, content["schema"], content["example"]


OPERATIONS = list(operations(json.loads(DOCUMENT.read_text())))


@pytest.mark.parametrize("path, example", [(path, example) for path, _, example in OPERATIONS], ids=lambda value: str(value)[:30])
def test_examples(server, path, example):
    body = {name: MODEL if value == "NAME" else value for name, value in example.items()}
    status, answer = server.post(path, body)
    if path == "/infill":  # this model has no tokens for it
        assert status == 400 and answer["error"]["code"] == "unsupported"
    else:
        assert status == 200, answer


# This model has no tokens for /infill.
@pytest.mark.parametrize("path, example", [(path, example) for path, _, example in OPERATIONS if path != "/infill"])
def test_streams(server, document, path, example):
    content = content_of(document, path, "post", 200)
    for media_type in content.keys() & {"text/event-stream", "application/x-ndjson"}:
        body = json.dumps(example | {"stream": True, "return_progress": True, "cache_report": True})
        status, answer = server.open(path, body.encode(), {"Content-Type": "application/json"})
        assert status == 200, answer
        check_stream(document, path, media_type, answer.decode())


def properties_of(document, part, example):
    """All that an object may have which `part` allows, and is like the example."""
    if reference := part.get("$ref"):
        return properties_of(document, document["components"]["schemas"][reference.rsplit("/", 1)[1]], example)
    found = dict(part.get("properties", {}))
    alternatives = [one for one in part.get("oneOf", []) if validator(document, one).is_valid(example)]
    for inner in part.get("allOf", []) + alternatives:
        found |= properties_of(document, inner, example)
    return found


NONSENSE = ["", {"nonsense": [{}]}, [[["nonsense"]]], "\u2205 nonsense", -7.5, 1e300, True, 0]


def wrong_values(document, part):
    check = validator(document, {"allOf": [part]})
    return [value for value in NONSENSE if not check.is_valid(value)]


def expect_refusal(server, path, body, field):
    status, answer = server.post(path, body)
    assert status == 400, f"{path} takes {json.dumps(body)}: {answer}"
    error = answer["error"]
    said = error.get("param", error["message"]) if isinstance(error, dict) else error
    assert said is not None and field in said, f"{path} of {json.dumps(body)}: {error}"


@pytest.mark.parametrize("path, schema, example", OPERATIONS, ids=[path for path, _, _ in OPERATIONS])
def test_every_field_is_read(server, document, path, schema, example):
    """Each that the document has is refused by its name, where it is wrong."""
    wrongs = 0
    for name, part in properties_of(document, schema, example).items():
        body = dict(example)
        if name in ("messages", "prompt"):
            body = {other: value for other, value in body.items() if other not in ("messages", "prompt")}
        for value in wrong_values(document, part):
            expect_refusal(server, path, body | {name: value}, name)
            wrongs += 1
        for inner_name, inner in properties_of(document, part, {}).items():
            for value in wrong_values(document, inner):
                expect_refusal(server, path, body | {name: {inner_name: value}}, name)
    assert wrongs > 0, "nothing was wrong"


@pytest.mark.parametrize("path", [path for path, _, _ in OPERATIONS])
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'"text"', b"\xff", b"[" * 100 + b"]" * 100], ids=str)
def test_what_is_no_object_is_refused(server, document, path, body):
    status, answer = server.post(path, body)
    assert status == 400
    validator(document, content_of(document, path, "post", 400)["application/json"]["schema"]).validate(answer)
