// All conversations, in memory and in the browser's storage, and which one is open.
import { computed, signal } from "@preact/signals";
import { settings } from "../settings";
import { type Conversation, newConversation } from "./conversation";
import * as storage from "./storage";

export const conversations = signal<Conversation[]>([]); // the one changed last first
export const openId = signal<string | null>(null);
export const current = computed(() => conversations.value.find(({ id }) => id === openId.value));
// Why nothing can be kept, if so: a browser may have storage switched off.
export const storageProblem = signal("");

const lastOpen = "trellis-open";
const saveEvery = 1000; // ms: while an answer is written

function keep(work: Promise<unknown>): void {
  work.then(
    () => (storageProblem.value = ""),
    (error) => (storageProblem.value = String(error)),
  );
}

export async function loadConversations(): Promise<void> {
  try {
    const loaded = await storage.loadAll();
    // What was being written when the page was closed will not go on.
    for (const message of loaded.flatMap(({ messages }) => messages)) {
      if (message.state === "writing") message.state = "stopped";
    }
    conversations.value = loaded.sort((a, b) => b.changed - a.changed);
    const last = sessionStorage.getItem(lastOpen);
    openId.value = loaded.some(({ id }) => id === last) ? last : (loaded[0]?.id ?? null);
  } catch (error) {
    storageProblem.value = String(error);
  }
}

export function openConversation(id: string | null): void {
  openId.value = id;
  sessionStorage.setItem(lastOpen, id ?? "");
}

// The open one, or one that is begun now.
export function openOrNew(): Conversation {
  if (current.value) return current.value;
  const conversation = newConversation(settings.value.system);
  conversations.value = [conversation, ...conversations.value];
  openConversation(conversation.id);
  return conversation;
}

const saving = new Map<string, ReturnType<typeof setTimeout>>();

export function saveNow(id: string): void {
  clearTimeout(saving.get(id));
  saving.delete(id);
  const conversation = conversations.value.find((other) => other.id === id);
  if (conversation) keep(storage.save(conversation));
}

function saveSoon(id: string): void {
  if (!saving.has(id))
    saving.set(
      id,
      setTimeout(() => saveNow(id), saveEvery),
    );
}

// Replaces it by what `how` makes of it; `id` may be gone by now.
export function update(id: string, how: (conversation: Conversation) => Conversation): void {
  const before = conversations.value.find((conversation) => conversation.id === id);
  if (!before) return;
  const after = how(before);
  if (after.changed === before.changed) {
    conversations.value = conversations.value.map((other) => (other === before ? after : other));
    return saveSoon(id);
  }
  conversations.value = [after, ...conversations.value.filter((other) => other !== before)];
  keep(storage.save(after));
}

export function remove(id: string): void {
  conversations.value = conversations.value.filter((conversation) => conversation.id !== id);
  if (openId.value === id) openConversation(conversations.value[0]?.id ?? null);
  keep(storage.erase(id));
}

// As a file that the browser downloads.
export function download(conversation: Conversation): void {
  const blob = new Blob([JSON.stringify(conversation, null, 2)], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  const name = conversation.title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40) || "conversation";
  link.download = `${name}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}
