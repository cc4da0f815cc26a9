// The frame around the two views: where one is, how the server is, settings and key.
import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { hasKeys, keyIsRefused } from "./api";
import { ChatView } from "./chat/chat_view";
import { KeyDialog } from "./key_dialog";
import type { IconName } from "./icons";
import { IconButton } from "./parts";
import { model, server } from "./server_state";
import { set, settings, type Settings } from "./settings";
import { SettingsDialog } from "./settings_dialog";
import { TreeView } from "./tree/tree_view";

// In the address, so that a view can be linked to and the browser's back button works.
const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

const views = [
  { name: "Chat", hash: "#chat" },
  { name: "Tree", hash: "#tree" },
];

function Navigation() {
  const at = hash.value === "#tree" ? "#tree" : "#chat";
  return (
    <nav class="views" aria-label="Views">
      {views.map((view) => (
        <a key={view.hash} href={view.hash} aria-current={at === view.hash ? "page" : undefined}>
          {view.name}
        </a>
      ))}
    </nav>
  );
}

const themes: Record<Settings["theme"], { icon: IconName; next: Settings["theme"] }> = {
  auto: { icon: "auto", next: "light" },
  light: { icon: "light", next: "dark" },
  dark: { icon: "dark", next: "auto" },
};

function ThemeButton() {
  const { theme } = settings.value;
  const { icon, next } = themes[theme];
  return (
    <IconButton
      icon={icon}
      label={`Theme: ${theme}. Change to ${next}`}
      onClick={() => set("theme", next)}
    />
  );
}

function Status() {
  const state = server.value;
  switch (state.is) {
    case "unknown":
      return null;
    case "away":
      return (
        <p class="banner problem" role="status">
          The server does not answer. Trying again…
        </p>
      );
    case "loading":
      return (
        <p class="banner" role="status">
          The model is loading
          <progress value={state.progress} aria-label="Loaded" />
          {Math.round(100 * state.progress)} %
        </p>
      );
    case "ready":
      return null;
  }
}

function Header({ onSettings, onKey }: { onSettings: () => void; onKey: () => void }) {
  return (
    <header class="top">
      <span class="brand">
        <svg class="icon" viewBox="0 0 32 32" aria-hidden="true">
          <path d="M4 16h8c5 0 4-9 9-9h7M12 16h16M12 16c5 0 4 9 9 9h7" />
        </svg>
        Trellis
      </span>
      <Navigation />
      <span class="model">{model.value?.id}</span>
      {hasKeys.value && <IconButton icon="key" label="Key" onClick={onKey} />}
      <ThemeButton />
      <IconButton icon="settings" label="Settings" onClick={onSettings} />
    </header>
  );
}

export function App() {
  const [isInSettings, setInSettings] = useState(false);
  const [isAskingForKey, setAskingForKey] = useState(false);
  return (
    <>
      <Header onSettings={() => setInSettings(true)} onKey={() => setAskingForKey(true)} />
      <Status />
      {hash.value === "#tree" ? <TreeView /> : <ChatView />}
      {isInSettings && <SettingsDialog onClose={() => setInSettings(false)} />}
      {(isAskingForKey || keyIsRefused.value) && (
        <KeyDialog
          onClose={() => {
            setAskingForKey(false);
            keyIsRefused.value = false;
          }}
        />
      )}
    </>
  );
}
