"""What the official client asks for and gets: both endpoints, streams, logprobs, seeds, several answers, errors."""

import openai
import pytest
from server_process import MODEL, Server


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def ask(client, **more):
    return client.completions.create(model=MODEL, **{"max_tokens": 6, "temperature": 0, **more})


def test_prompts_of_text_and_of_tokens_give_an_answer_each(client, server):
    tokens = server.post("/tokenize", {"content": "The sky is"})[1]["tokens"]
    one = ask(client, prompt="The sky is").choices[0].text
    both = ask(client, prompt=["The sky is", "Two and two is"]).choices
    assert [c.index for c in both] == [0, 1] and both[0].text == one != both[1].text
    assert ask(client, prompt=tokens).choices[0].text == one
    mixed = server.post("/v1/completions", {"prompt": [tokens, "The sky is"], "max_tokens": 6, "temperature": 0})[1]
    assert [c["text"] for c in mixed["choices"]] == [one, one]
    assert ask(client, prompt="The sky is", echo=True).choices[0].text == "The sky is" + one


def test_choice_i_is_the_answer_with_seed_plus_i(client):
    several = ask(client, prompt="Once", n=3, seed=40, temperature=1.2, top_p=0.9)
    for i, choice in enumerate(several.choices):
        alone = ask(client, prompt="Once", seed=40 + i, temperature=1.2, top_p=0.9)
        assert alone.choices[0].text == choice.text
    assert len({c.text for c in several.choices}) == 3
    assert several.usage.completion_tokens == 18


def test_logprobs_of_completions(client):
    answer = ask(client, prompt="The sky is", logprobs=3).choices[0]
    logprobs = answer.logprobs
    assert "".join(logprobs.tokens) == answer.text
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 6
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert len(top) == 3 and top[token] == logprob == max(top.values()) <= 0


def test_logprobs_of_chats_stream_as_they_come_whole(client):
    request = {"model": MODEL, "max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    request["messages"] = [{"role": "user", "content": "Name a colour."}]
    whole = client.chat.completions.create(**request).choices[0]
    assert "".join(t.token for t in whole.logprobs.content) == whole.message.content
    streamed = []
    for chunk in client.chat.completions.create(**request, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert streamed == whole.logprobs.content
    assert all(t.token == t.top_logprobs[0].token and len(t.top_logprobs) == 2 for t in streamed)


def test_a_stream_of_several_with_usage(client):
    chunks = list(ask(client, prompt="Once", n=2, temperature=1, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12
    assert all(c.usage is None for c in chunks[:-1])
    assert [c.choices[0].finish_reason for c in chunks[:-1]].count("length") == 2


def test_bias_forces_and_bans_and_a_penalty_wears_it_off(client, server):
    (forced,) = server.post("/tokenize", {"content": " river"})[1]["tokens"]
    assert ask(client, prompt="x", logit_bias={forced: 100}).choices[0].text == " river" * 6
    assert "river" not in ask(client, prompt=" river" * 9, logit_bias={forced: -100}).choices[0].text
    # 40 above all others, and 2 less with each time it was said.
    worn = ask(client, prompt="x", logit_bias={forced: 40}, frequency_penalty=2, max_tokens=40).choices[0].text
    assert worn.startswith(" river" * 5) and worn.count(" river") < 40


@pytest.mark.parametrize(
    "more, error, field",
    [
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"n": 1000}, openai.BadRequestError, "n"),
        ({"logprobs": 99}, openai.BadRequestError, "logprobs"),
        ({"logit_bias": {"x": 1}}, openai.BadRequestError, 'logit_bias["x"]'),
        ({"prompt": [300] * 9000}, openai.BadRequestError, "prompt"),
        ({"stop": [1]}, openai.BadRequestError, "stop[0]"),
    ],
)
def test_errors_are_the_clients_own(client, more, error, field):
    with pytest.raises(error) as raised:
        client.completions.create(**{"model": MODEL, "prompt": "x", **more})
    assert raised.value.param == field


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}


def test_a_chat_with_tools_goes_on_after_a_call(client):
    question = [{"role": "user", "content": "What is the weather in Oslo?"}]

    def ask_chat(messages):
        answer = client.chat.completions.create(
            model=MODEL, messages=messages, tools=[WEATHER], max_tokens=8, temperature=0
        )
        assert answer.choices[0].message.content
        return answer.usage.prompt_tokens

    def after_result(text):
        call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Oslo"}'}}
        called = {"role": "assistant", "content": None, "tool_calls": [call]}
        return ask_chat([*question, called, {"role": "tool", "tool_call_id": "1", "content": text}])

    first, short = ask_chat(question), after_result("rain")
    # This model's template knows nothing of tools or calls, but the result is a turn like any other.
    assert first < short < after_result("rain, then sun, then rain again")


def test_a_full_queue_is_told_to_come_back():
    with Server("--kv-cache", "64MiB", "--max-queue", "100") as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
        # 64 run, 36 wait.
        with server.send("/v1/completions", {"prompt": "x", "n": 100, "max_tokens": 4000, "ignore_eos": True}):
            server.wait_until("they run", lambda: server.get("/v1/cache")["leases"] > 0)
            with pytest.raises(openai.InternalServerError) as raised:
                ask(client, prompt="x", n=100)
        assert raised.value.status_code == 503
        assert raised.value.response.headers["retry-after"] == "1"
        # Which is what the client does by itself.
        assert ask(client.with_options(max_retries=5), prompt="x").choices
        assert server.stop() == 0


def test_metrics_count_what_was_asked(fresh):
    before = fresh.metrics()
    fresh.post("/v1/completions", {"prompt": [300] * 50, "max_tokens": 4, "ignore_eos": True})
    after = fresh.metrics()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["trellis_computed_tokens_total"] == 50
    assert grown["trellis_generation_tokens_total"] == 4
    assert grown["trellis_time_to_first_token_seconds_count"] == 1
    assert grown["trellis_inter_token_latency_seconds_count"] == 3
    assert grown['trellis_request_prompt_tokens_bucket{le="64"}'] == 1
