// Whether the server is there, how far it has loaded its model, and which one that is.
import { computed, effect, signal } from "@preact/signals";
import { getModels, key, type Model } from "./api";
import { settings } from "./settings";

export type ServerState =
  { is: "unknown" | "away" | "ready" } | { is: "loading"; progress: number };

export const server = signal<ServerState>({ is: "unknown" });
export const models = signal<Model[]>([]);
// The one that was chosen, or the server's own choice.
export const model = computed(
  () => models.value.find(({ id }) => id === settings.value.model) ?? models.value[0],
);

const soon = 1000;
const seldom = 10000;

async function look(): Promise<ServerState> {
  try {
    const response = await fetch("health");
    if (response.ok) return { is: "ready" };
    const { progress } = await response.json();
    return { is: "loading", progress: progress ?? 0 };
  } catch {
    return { is: "away" };
  }
}

export function watchServer(): void {
  const again = async () => {
    const state = await look();
    if (JSON.stringify(state) !== JSON.stringify(server.value)) server.value = state;
    setTimeout(again, state.is === "ready" ? seldom : soon);
  };
  again();
  effect(() => {
    if (server.value.is !== "ready") return;
    key.value; // with another one the answer may be another
    getModels().then(
      (list) => (models.value = list),
      () => (models.value = []),
    );
  });
}
