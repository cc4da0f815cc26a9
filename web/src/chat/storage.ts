// Conversations are kept in the browser's IndexedDB, one record each: they may be many and long,
// and localStorage holds 5 MiB, which it reads and writes whole while everything waits.
import type { Conversation } from "./conversation";

const store = "conversations";

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

let opened: Promise<IDBDatabase> | undefined;

function database(): Promise<IDBDatabase> {
  if (!opened) {
    const request = indexedDB.open("trellis", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(store, { keyPath: "id" });
    opened = settled(request);
  }
  return opened;
}

async function inStore<T>(
  mode: IDBTransactionMode,
  work: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  return settled(work((await database()).transaction(store, mode).objectStore(store)));
}

export const loadAll = () =>
  inStore<Conversation[]>("readonly", (conversations) => conversations.getAll());
export const save = (conversation: Conversation) =>
  inStore("readwrite", (conversations) => conversations.put(conversation));
export const erase = (id: string) =>
  inStore("readwrite", (conversations) => conversations.delete(id));
