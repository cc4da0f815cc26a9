// A conversation is a tree of messages: to edit a message or to ask for another answer makes a
// sibling, and nothing is lost. One path of it is shown. Values are never changed, only replaced.
import type { Diverged } from "../api";

export interface Stats {
  ttftMs: number | null; // as measured here
  promptTokens: number;
  cachedTokens: number;
  computedTokens: number;
  generatedTokens: number;
  tokensPerSecond: number | null;
  missed: Record<string, number>; // computed tokens, by why they were not cached
  diverged?: Diverged;
}

export interface Message {
  id: string;
  parent: string | null; // null: it begins the conversation
  role: "user" | "assistant";
  text: string;
  thoughts: string;
  state: "writing" | "done" | "stopped" | "length" | "failed";
  error?: string;
  stats?: Stats;
}

export interface Conversation {
  id: string;
  title: string;
  system: string;
  changed: number; // ms since 1970
  messages: Message[]; // parents before their children, siblings by age
  chosen: Record<string, string>; // of a message's children (of "", the first ones) the one shown
}

// crypto.randomUUID is there in secure contexts only, and a server on the local network is none.
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(system: string): Conversation {
  return { id: newId(), title: "", system, changed: Date.now(), messages: [], chosen: {} };
}

export function newMessage(role: Message["role"], parent: string | null, text = ""): Message {
  const state = role === "user" ? "done" : "writing";
  return { id: newId(), parent, role, text, thoughts: "", state };
}

export function siblingsOf(conversation: Conversation, message: Message): Message[] {
  return conversation.messages.filter((other) => other.parent === message.parent);
}

// The messages that are shown, from the first on.
export function pathOf({ messages, chosen }: Conversation): Message[] {
  const path: Message[] = [];
  for (let parent: string | null = null; ;) {
    const children: Message[] = messages.filter((message) => message.parent === parent);
    const next: Message | undefined =
      children.find((child) => child.id === chosen[parent ?? ""]) ?? children.at(-1);
    if (!next) return path;
    path.push(next);
    parent = next.id;
  }
}

// From the first message to this one, whether or not they are shown.
export function pathTo(conversation: Conversation, id: string | null): Message[] {
  const path: Message[] = [];
  const byId = new Map(conversation.messages.map((message) => [message.id, message]));
  for (let at = id === null ? undefined : byId.get(id); at; at = byId.get(at.parent ?? "")) {
    path.unshift(at);
  }
  return path;
}

export function choose(conversation: Conversation, message: Message): Conversation {
  const chosen = { ...conversation.chosen, [message.parent ?? ""]: message.id };
  return { ...conversation, chosen };
}

export function add(conversation: Conversation, message: Message): Conversation {
  const title = conversation.title || titleFrom(message.text);
  const messages = [...conversation.messages, message];
  return choose({ ...conversation, title, messages, changed: Date.now() }, message);
}

export function change(
  conversation: Conversation,
  id: string,
  parts: Partial<Message>,
): Conversation {
  const messages = conversation.messages.map((message) =>
    message.id === id ? { ...message, ...parts } : message,
  );
  return { ...conversation, messages };
}

function titleFrom(text: string): string {
  const line = text.trim().split("\n")[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}
