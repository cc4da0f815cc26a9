// The official OpenAI SDK for Node: chats, streams, tools and responses, as its own parser reads them.
import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const model = process.env.TRELLIS_MODEL;
const client = new OpenAI({ baseURL: `${process.env.TRELLIS_URL}/v1`, apiKey: "none" });

const weather = {
  name: "get_weather",
  description: "The weather of a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" }, unit: { enum: ["celsius", "fahrenheit"] } },
    required: ["city"],
  },
};
const chat = {
  model,
  temperature: 0,
  max_tokens: 200,
  messages: [{ role: "user", content: "What is the weather in Ulm?" }],
};

test("a stream is the whole answer", async () => {
  const whole = await client.chat.completions.create(chat);
  const stream = client.chat.completions.stream({ ...chat, stream_options: { include_usage: true } });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(final.choices[0].finish_reason, whole.choices[0].finish_reason);
  assert.equal(final.usage.completion_tokens, whole.usage.completion_tokens);
});

test("a tool is called and its result read", async () => {
  const request = { ...chat, tools: [{ type: "function", function: weather }] };
  const stream = client.chat.completions.stream({ ...request, tool_choice: "required" });
  const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
  assert.equal(finish_reason, "tool_calls");
  const [call] = message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.equal(typeof JSON.parse(call.function.arguments).city, "string");
  const messages = [...chat.messages, message, { role: "tool", tool_call_id: call.id, content: "9 degrees" }];
  const after = await client.chat.completions.create({ ...request, messages, tool_choice: "none" });
  assert.ok(after.choices[0].message.content);
  assert.ok(after.usage.prompt_tokens_details.cached_tokens > 100);
});

test("responses: a stream, a tool's result, and what it goes on from", async () => {
  const request = {
    model,
    temperature: 0,
    max_output_tokens: 200,
    tools: [{ type: "function", strict: false, ...weather }],
  };
  const stream = client.responses.stream({
    ...request,
    input: chat.messages[0].content,
    tool_choice: "required",
  });
  const first = await stream.finalResponse();
  assert.equal(first.status, "completed");
  const [call] = first.output.filter((item) => item.type === "function_call");
  assert.equal(typeof JSON.parse(call.arguments).city, "string");
  const second = await client.responses.create({
    ...request,
    previous_response_id: first.id,
    input: [{ type: "function_call_output", call_id: call.call_id, output: "9 degrees" }],
    tool_choice: "none",
  });
  assert.ok(second.output_text);
  assert.ok(second.usage.input_tokens_details.cached_tokens > 100);
});

test("errors are the SDK's", async () => {
  await assert.rejects(client.chat.completions.create({ ...chat, model: "other" }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ ...chat, messages: [] }), OpenAI.BadRequestError);
});
