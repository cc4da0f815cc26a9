// The server's HTTP API, as far as the page uses it: docs/api.md.
import { signal } from "@preact/signals";

export interface Model {
  id: string;
  meta: { n_ctx: number; n_params: number; size: number };
}

export interface CacheStats {
  pages: { capacity: number; free: number; private: number; committed: number; pinned: number };
  page_tokens: number;
  page_bytes: number;
  pins: { count: number; pages: number };
  nodes: number;
  leases: number;
  scopes: number;
  tokens_looked_up: number;
  tokens_matched: number;
  pages_evicted: number;
}

export interface TreeNode {
  id: number;
  parent: number | null;
  scope: number;
  begin: number;
  tokens: number;
  pages: number;
  bytes: number;
  leases: number;
  age: number;
  children: number;
  hidden_children: number;
  text?: string;
}

export interface Tree {
  total: { nodes: number; pages: number; leases: number };
  hidden: { nodes: number; pages: number };
  own_scope: number | null;
  nodes: TreeNode[];
}

export interface Diverged {
  position: number;
  prompt?: string;
  cached?: string;
}

export interface LoggedRequest {
  id: string;
  choice: number;
  seq: number;
  state: "waiting" | "prompt" | "generating" | "finished";
  finish_reason: string | null;
  prompt_tokens: number;
  cached_tokens: number;
  computed_tokens: number;
  generated_tokens: number;
  missed: Record<string, number>;
  diverged?: Diverged;
  node: number | null;
  submitted_at: number;
  admitted_at: number | null;
  first_token_at: number | null;
  finished_at: number | null;
}

export interface RequestList {
  seq: number;
  now: number;
  requests: LoggedRequest[];
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

// The key stays with the tab: who closes it takes the key along.
const keyName = "trellis-key";
export const key = signal(sessionStorage.getItem(keyName) ?? "");
// The server has keys; and it has refused the one that it was given, or none.
export const hasKeys = signal(key.value !== "");
export const keyIsRefused = signal(false);

export function setKey(value: string): void {
  key.value = value;
  keyIsRefused.value = false;
  if (value) sessionStorage.setItem(keyName, value);
  else sessionStorage.removeItem(keyName);
}

async function errorText(response: Response): Promise<string> {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text || `the server answered with status ${response.status}`;
  }
}

// An answer whose status is a success. Paths are relative to the page.
export async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key.value) headers.set("Authorization", `Bearer ${key.value}`);
  const response = await fetch(path, { ...init, headers });
  if (response.ok) return response;
  if (response.status === 401) hasKeys.value = keyIsRefused.value = true;
  throw new ApiError(response.status, await errorText(response));
}

async function get<T>(path: string): Promise<T> {
  return (await call(path)).json();
}

// What is empty is left out.
function withQuery(path: string, query: Record<string, string | number>): string {
  const said = Object.entries(query).filter(([, value]) => value !== "");
  return said.length ? `${path}?${new URLSearchParams(said.map(([k, v]) => [k, `${v}`]))}` : path;
}

export const getModels = () => get<{ data: Model[] }>("v1/models").then((list) => list.data);
export const getCache = (model: string) => get<CacheStats>(withQuery("v1/cache", { model }));
export const getTree = (model: string, limit: number, salt: string) =>
  get<Tree>(withQuery("v1/cache/tree", { limit, cache_salt: salt, model }));
export const getRequests = (model: string, since: number, salt: string) =>
  get<RequestList>(withQuery("v1/requests", { since, cache_salt: salt, model }));
