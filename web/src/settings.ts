// What the user has set, in localStorage: small, and wanted before the first paint.
import { effect, signal } from "@preact/signals";

export interface Settings {
  theme: "auto" | "light" | "dark";
  model: string; // "": whatever the server has
  system: string; // of conversations to come
  thinking: "on" | "off"; // of models that can
  // Sampling; null leaves it to the server.
  temperature: number | null;
  topP: number | null;
  topK: number | null;
  minP: number | null;
  repeatPenalty: number | null;
  maxTokens: number | null;
  seed: number | null;
  cacheSalt: string;
  treeLimit: number;
}

const defaults: Settings = {
  theme: "auto",
  model: "",
  system: "",
  thinking: "on",
  temperature: null,
  topP: null,
  topK: null,
  minP: null,
  repeatPenalty: null,
  maxTokens: null,
  seed: null,
  cacheSalt: "",
  treeLimit: 100,
};

const name = "trellis-settings";

function load(): Settings {
  try {
    return { ...defaults, ...JSON.parse(localStorage.getItem(name) ?? "{}") };
  } catch {
    return defaults;
  }
}

export const settings = signal<Settings>(load());

export function set<K extends keyof Settings>(field: K, value: Settings[K]): void {
  settings.value = { ...settings.value, [field]: value };
}

effect(() => {
  localStorage.setItem(name, JSON.stringify(settings.value));
  document.documentElement.dataset.theme = settings.value.theme;
});
