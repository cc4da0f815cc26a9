// Asks for an answer and writes it into its conversation as it comes.
import { signal } from "@preact/signals";
import { getRequests, type LoggedRequest } from "../api";
import { model } from "../server_state";
import { settings } from "../settings";
import {
  add,
  change,
  type Conversation,
  type Message,
  newMessage,
  pathTo,
  type Stats,
} from "./conversation";
import { openOrNew, saveNow, update } from "./conversations";
import { type Chunk, streamChat } from "./stream";

// Answers that are being written, by their conversation: one in each.
const writing = signal<ReadonlyMap<string, AbortController>>(new Map());
// For screen readers: an answer is announced when it is complete, not with every token.
export const announcement = signal("");

export const isWriting = (id: string | null | undefined) => !!id && writing.value.has(id);
export const stop = (id: string) => writing.value.get(id)?.abort();

function setWriting(id: string, controller: AbortController | null): void {
  const now = new Map(writing.value);
  if (controller) now.set(id, controller);
  else now.delete(id);
  writing.value = now;
}

interface Turn {
  role: string;
  content: string;
}

// An answer that failed, or was stopped before its text, is none; and as many templates refuse two
// turns of the same role, the questions around it are one.
function turnsTo(conversation: Conversation, id: string): Turn[] {
  const turns: Turn[] = [];
  for (const { role, text } of pathTo(conversation, id)) {
    const last = turns.at(-1);
    if (!text) continue;
    if (last?.role === role) last.content += `\n\n${text}`;
    else turns.push({ role, content: text });
  }
  return turns;
}

function requestBody(conversation: Conversation, parent: string): Record<string, unknown> {
  const s = settings.value;
  const messages = turnsTo(conversation, parent);
  if (conversation.system) messages.unshift({ role: "system", content: conversation.system });
  const body: Record<string, unknown> = {
    model: model.value?.id,
    messages,
    chat_template_kwargs: s.thinking === "off" ? { enable_thinking: false } : null,
    prompt_cache_key: conversation.id, // its share of the machine
    cache_salt: s.cacheSalt || null,
    temperature: s.temperature,
    top_p: s.topP,
    top_k: s.topK,
    min_p: s.minP,
    repetition_penalty: s.repeatPenalty,
    max_tokens: s.maxTokens,
    seed: s.seed,
  };
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value != null));
}

// What has come of an answer. The page is told of it now and then: to draw costs more than a token.
class Progress {
  private text = "";
  private thoughts = "";
  private pending: ReturnType<typeof setTimeout> | undefined;
  private readonly asked = performance.now();
  private ttftMs: number | null = null;
  id = ""; // the server's
  finish: string | null = null;
  stats: Stats | undefined;

  constructor(private readonly show: (parts: Partial<Message>) => void) {}

  take(chunk: Chunk): void {
    this.id = chunk.id;
    const choice = chunk.choices[0];
    const { content = "", reasoning_content: thought = "" } = choice?.delta ?? {};
    if ((content || thought) && this.ttftMs === null) this.ttftMs = performance.now() - this.asked;
    this.text += content;
    this.thoughts += thought;
    this.finish = choice?.finish_reason ?? this.finish;
    if (chunk.usage && chunk.timings) this.stats = this.statsOf(chunk.usage, chunk.timings);
    this.pending ??= setTimeout(() => this.flush(), 50);
  }

  flush(more: Partial<Message> = {}): void {
    clearTimeout(this.pending);
    this.pending = undefined;
    this.show({ text: this.text, thoughts: this.thoughts, ...more });
  }

  private statsOf(
    usage: NonNullable<Chunk["usage"]>,
    timings: NonNullable<Chunk["timings"]>,
  ): Stats {
    return {
      ttftMs: this.ttftMs,
      promptTokens: usage.prompt_tokens,
      cachedTokens: usage.prompt_tokens_details.cached_tokens,
      computedTokens: timings.prompt_n,
      generatedTokens: usage.completion_tokens,
      tokensPerSecond: rate(timings.predicted_n, timings.predicted_ms),
      missed: timings.cache_report?.missed ?? {},
      diverged: timings.cache_report?.diverged,
    };
  }

  // A stream that was stopped has no last chunk; the server's list of requests has the same.
  async statsOfStopped(model: string): Promise<Stats | undefined> {
    const logged = this.id && (await finishedRequest(model, this.id));
    if (!logged) return undefined;
    const { first_token_at: first, finished_at: finished } = logged;
    return {
      ttftMs: this.ttftMs,
      promptTokens: logged.prompt_tokens,
      cachedTokens: logged.cached_tokens,
      computedTokens: logged.computed_tokens,
      generatedTokens: logged.generated_tokens,
      tokensPerSecond:
        first && finished ? rate(logged.generated_tokens, (finished - first) * 1000) : null,
      missed: logged.missed,
      diverged: logged.diverged,
    };
  }
}

// The server needs a moment to see that its client has left.
async function finishedRequest(model: string, id: string): Promise<LoggedRequest | undefined> {
  for (let tries = 0; tries < 10; tries++) {
    const { requests } = await getRequests(model, 0, settings.value.cacheSalt);
    const logged = requests.find((request) => request.id === id);
    if (logged?.state === "finished") return logged;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return undefined;
}

// The first token comes with the prompt; what follows takes the time.
function rate(tokens: number, ms: number): number | null {
  return tokens > 1 && ms > 0 ? ((tokens - 1) * 1000) / ms : null;
}

// Answers the message `parent`, beside the answers that it has.
async function answer(conversationId: string, parent: string): Promise<void> {
  const controller = new AbortController();
  const message = newMessage("assistant", parent);
  const show = (parts: Partial<Message>) =>
    update(conversationId, (conversation) => change(conversation, message.id, parts));
  const progress = new Progress(show);
  setWriting(conversationId, controller);
  let body: Record<string, unknown> = {};
  update(conversationId, (conversation) => {
    body = requestBody(conversation, parent);
    return add(conversation, message);
  });
  announcement.value = "The answer is being written.";
  try {
    for await (const chunk of streamChat(body, controller.signal)) progress.take(chunk);
    const state = progress.finish === "length" ? "length" : "done";
    progress.flush({ state, stats: progress.stats });
    announcement.value = "The answer is complete.";
  } catch (error) {
    if (controller.signal.aborted) {
      progress.flush({ state: "stopped" });
      announcement.value = "The answer was stopped.";
      await progress.statsOfStopped(`${body.model ?? ""}`).then(
        (stats) => show({ stats }),
        () => {}, // the figures are an extra: without them the text stays
      );
    } else {
      progress.flush({ state: "failed", error: (error as Error).message });
      announcement.value = "The answer failed.";
    }
  } finally {
    setWriting(conversationId, null);
    saveNow(conversationId);
  }
}

// `parent`: the message before it; null begins a conversation.
export function send(text: string, parent: string | null): void {
  const conversation = openOrNew();
  const message = newMessage("user", parent, text);
  update(conversation.id, (before) => add(before, message));
  answer(conversation.id, message.id);
}

export function answerAgain(conversation: Conversation, message: Message): void {
  if (message.parent) answer(conversation.id, message.parent);
}
