// POST /v1/chat/completions as a stream of its chunks.
import { call } from "../api";

export interface Chunk {
  id: string;
  choices: {
    delta: { content?: string; reasoning_content?: string };
    finish_reason: string | null;
  }[];
  usage?: {
    prompt_tokens: number;
    completion_tokens: number;
    prompt_tokens_details: { cached_tokens: number };
  } | null;
  timings?: {
    prompt_n: number;
    predicted_n: number;
    predicted_ms: number;
    cache_report?: {
      missed: Record<string, number>;
      diverged?: { position: number; prompt: string; cached?: string };
    };
  };
  error?: { message: string };
}

// The data of server-sent events. A piece of the body may end anywhere.
async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = events.pop() ?? "";
      for (const event of events) {
        if (event.startsWith("data: ")) yield event.slice("data: ".length);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export async function* streamChat(
  body: Record<string, unknown>,
  signal: AbortSignal,
): AsyncGenerator<Chunk> {
  const response = await call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      ...body,
      stream: true,
      stream_options: { include_usage: true },
      cache_report: true,
    }),
    signal,
  });
  if (!response.body) throw new Error("the answer has no body");
  for await (const data of eventsOf(response.body)) {
    if (data === "[DONE]") return;
    const chunk: Chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    yield chunk;
  }
  throw new Error("the connection ended before the answer did");
}
