// What the cache and the requests are doing now, asked for again and again while somebody looks.
import { signal } from "@preact/signals";
import {
  ApiError,
  type CacheStats,
  getCache,
  getRequests,
  getTree,
  type LoggedRequest,
  type Tree,
} from "../api";
import { model } from "../server_state";
import { settings } from "../settings";

export const cache = signal<CacheStats | null>(null);
export const tree = signal<Tree | null>(null);
export const requests = signal<SeenRequest[]>([]); // the one that came last first
export const problem = signal("");

export interface SeenRequest extends LoggedRequest {
  isFresh: boolean; // it runs, or has just finished: it is shown on its way down the tree
  endedAt: number | null; // ms, when the page heard of its end
}

const often = 400; // ms between looks while something runs
const seldom = 1200;
const linger = 4000; // ms that a request stays in the picture when it has finished
const mostKept = 100;

let since = 0;
let salt = "";
let name = ""; // of the model

const nameOf = ({ id, choice }: LoggedRequest) => `${id}/${choice}`;

function merge(news: LoggedRequest[], isFirst: boolean): void {
  const now = performance.now();
  const known = new Map(requests.value.map((request) => [nameOf(request), request]));
  for (const request of news) {
    const before = known.get(nameOf(request));
    const isFinished = request.state === "finished";
    // What had finished before anybody looked is history.
    const endedAt = isFinished ? (before?.endedAt ?? (isFirst ? -Infinity : now)) : null;
    known.set(nameOf(request), { ...request, endedAt, isFresh: false });
  }
  requests.value = [...known.values()]
    .map((request) => ({
      ...request,
      isFresh: request.endedAt === null || now - request.endedAt < linger,
    }))
    .sort((a, b) => b.submitted_at - a.submitted_at || b.choice - a.choice)
    .slice(0, mostKept);
}

function forget(): void {
  since = 0;
  requests.value = [];
}

async function look(): Promise<void> {
  const { cacheSalt, treeLimit } = settings.value;
  const chosen = model.value?.id ?? "";
  if (salt !== cacheSalt || name !== chosen) forget();
  salt = cacheSalt;
  name = chosen;
  const isFirst = since === 0;
  const [newCache, newTree, list] = await Promise.all([
    getCache(name),
    getTree(name, treeLimit, salt),
    getRequests(name, since, salt),
  ]);
  // Another server than before, which has not counted so far.
  if (list.seq < since) return forget();
  since = list.seq;
  cache.value = newCache;
  tree.value = newTree;
  merge(list.requests, isFirst);
}

// Looks until the function that it returns is called; not while nobody can see the page.
export function watch(): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isOver = false;
  forget();
  const again = async () => {
    if (!document.hidden) {
      try {
        await look();
        problem.value = "";
      } catch (error) {
        problem.value = error instanceof ApiError ? error.message : "The server does not answer.";
      }
    }
    const isBusy = requests.value.some(({ isFresh }) => isFresh);
    if (!isOver) timer = setTimeout(again, isBusy ? often : seldom);
  };
  again();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}
