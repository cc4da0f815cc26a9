// The official Anthropic SDK for Node.
import Anthropic from "@anthropic-ai/sdk";
import assert from "node:assert/strict";
import test from "node:test";

const model = process.env.TRELLIS_MODEL;
const client = new Anthropic({ baseURL: process.env.TRELLIS_URL, apiKey: "none" });

const request = {
  model,
  temperature: 0,
  max_tokens: 200,
  messages: [{ role: "user", content: "What is the weather in Ulm?" }],
};
const tools = [
  {
    name: "get_weather",
    description: "The weather of a city.",
    input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
];

test("a stream is the whole message", async () => {
  const whole = await client.messages.create(request);
  const stream = client.messages.stream(request);
  let text = "";
  stream.on("text", (delta) => (text += delta));
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.equal(final.stop_reason, whole.stop_reason);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
});

test("a tool is called and its result read", async () => {
  const stream = client.messages.stream({ ...request, tools, tool_choice: { type: "any" } });
  const first = await stream.finalMessage();
  assert.equal(first.stop_reason, "tool_use");
  const [call] = first.content.filter((block) => block.type === "tool_use");
  assert.equal(typeof call.input.city, "string");
  const messages = [
    ...request.messages,
    { role: "assistant", content: first.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "9 degrees" }] },
  ];
  const after = await client.messages.create({ ...request, messages, tools, tool_choice: { type: "none" } });
  assert.equal(after.content[0].type, "text");
  assert.ok(after.usage.cache_read_input_tokens > 100);
});

test("errors are the SDK's", async () => {
  await assert.rejects(client.messages.create({ ...request, model: "other" }), Anthropic.NotFoundError);
});
