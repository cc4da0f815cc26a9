// The streams of tests/transcripts, replayed by test_transcripts.py, as the official SDKs for Node read them.
import assert from "node:assert/strict";
import test from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const thoughts = "Ulm, then Rome.\n";
const text = 'I "look"\nit up: \u00e9\u2713\u{1f327}';
const calls = [{ city: "Ulm" }, { city: "Rome" }];
const messages = [{ role: "user", content: "Where does it rain?" }];
const replayed = (name) => process.env[`TRELLIS_REPLAY_${name}`];
const skip = replayed("OPENAI_CHAT") === undefined && "test_transcripts.py runs it";
const openai = (name) => new OpenAI({ baseURL: `${replayed(name)}/v1`, apiKey: "none", maxRetries: 0 });

test("OpenAI's chat", { skip }, async () => {
  const stream = openai("OPENAI_CHAT").chat.completions.stream({ model: "fake", messages });
  const { choices, usage } = await stream.finalChatCompletion();
  assert.equal(choices[0].finish_reason, "tool_calls");
  assert.equal(choices[0].message.content, text);
  assert.deepEqual(choices[0].message.tool_calls.map((call) => JSON.parse(call.function.arguments)), calls);
  assert.deepEqual(choices[0].message.tool_calls.map((call) => call.id), ["call_1", "call_2"]);
  assert.equal(usage.prompt_tokens_details.cached_tokens, 16);
});

test("OpenAI's completion", { skip }, async () => {
  const texts = ["", ""];
  const stream = await openai("OPENAI_COMPLETION").completions.create({ model: "fake", prompt: "a", n: 2, stream: true });
  for await (const chunk of stream) for (const choice of chunk.choices) texts[choice.index] += choice.text;
  assert.deepEqual(texts, [" blue", ' "grey"\n']);
});

test("OpenAI's responses", { skip }, async () => {
  const response = await openai("OPENAI_RESPONSES").responses.stream({ model: "fake", input: "a" }).finalResponse();
  assert.equal(response.status, "completed");
  assert.equal(response.output_text, text);
  assert.equal(response.output[0].content[0].text, thoughts);
  assert.deepEqual(response.output.slice(2).map((call) => JSON.parse(call.arguments)), calls);
  assert.equal(response.usage.total_tokens, 50);
});

test("Anthropic's messages", { skip }, async () => {
  const client = new Anthropic({ baseURL: replayed("ANTHROPIC_MESSAGES"), apiKey: "none", maxRetries: 0 });
  const message = await client.messages.stream({ model: "fake", max_tokens: 99, messages }).finalMessage();
  assert.equal(message.stop_reason, "tool_use");
  assert.equal(message.content[0].thinking, thoughts);
  assert.equal(message.content[1].text, text);
  assert.deepEqual(message.content.slice(2).map((call) => call.input), calls);
  assert.equal(message.usage.cache_read_input_tokens, 16);
});
