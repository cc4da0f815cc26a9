// The live tree: the budget, the tree itself, the node that was picked, and requests as they come.
import { useEffect, useState } from "preact/hooks";
import { count } from "../format";
import { server } from "../server_state";
import { set, settings } from "../settings";
import { Budget } from "./budget";
import { Details } from "./details";
import { heats } from "./layout";
import { cache, problem, requests, tree, watch } from "./live";
import { Outline } from "./outline";
import { Picture } from "./picture";
import { RequestList } from "./request_list";

type Form = "drawing" | "outline";

interface ToolbarProps {
  form: Form;
  onForm: (form: Form) => void;
}

function Toolbar({ form, onForm }: ToolbarProps) {
  return (
    <div class="toolbar">
      <div class="switch" role="group" aria-label="How the tree is shown">
        {(["drawing", "outline"] as const).map((name) => (
          <button
            key={name}
            type="button"
            aria-pressed={form === name}
            onClick={() => onForm(name)}
          >
            {name === "drawing" ? "Drawing" : "Outline"}
          </button>
        ))}
      </div>
      <label>
        at most
        <select
          value={settings.value.treeLimit}
          onChange={(event) => set("treeLimit", Number(event.currentTarget.value))}
        >
          {[50, 100, 200, 500].map((limit) => (
            <option key={limit} value={limit}>
              {limit} nodes
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}

function Heats() {
  return (
    <p class="legend">
      {heats.map((name, heat) => (
        <span key={name} class="cause">
          <span class={`swatch heat${heat}`} aria-hidden="true" />
          {name}
        </span>
      ))}
      <span>A longer bar has more tokens; a thicker one is shared by more branches.</span>
    </p>
  );
}

function Forest({
  selected,
  onSelect,
}: {
  selected: number | null;
  onSelect: (id: number) => void;
}) {
  const [form, setForm] = useState<Form>("drawing");
  const shown = tree.value;
  return (
    <section class="forest" aria-labelledby="forest-title">
      <header class="row">
        <h2 id="forest-title">Prefixes</h2>
        <Toolbar form={form} onForm={setForm} />
      </header>
      {shown && shown.nodes.length === 0 && (
        <p class="note">Nothing is cached yet. Ask something in the chat.</p>
      )}
      {shown && shown.nodes.length > 0 && form === "drawing" && (
        <Picture
          tree={shown}
          requests={requests.value.filter(({ isFresh }) => isFresh)}
          selected={selected}
          onSelect={onSelect}
        />
      )}
      {shown && shown.nodes.length > 0 && form === "outline" && (
        <Outline tree={shown} selected={selected} onSelect={onSelect} />
      )}
      <Heats />
      {shown && shown.hidden.nodes > 0 && (
        <p class="note">
          {count(shown.hidden.nodes)} colder nodes with {count(shown.hidden.pages)} pages are not
          shown.
        </p>
      )}
    </section>
  );
}

export function TreeView() {
  const [selected, setSelected] = useState<number | null>(null);
  const isReady = server.value.is === "ready";
  useEffect(() => (isReady ? watch() : undefined), [isReady]);
  return (
    <main class="tree">
      <h1 class="hidden">The live tree</h1>
      {problem.value && isReady && (
        <p class="banner problem" role="status">
          {problem.value}
        </p>
      )}
      {cache.value && <Budget cache={cache.value} />}
      <div class="columns">
        <Forest selected={selected} onSelect={setSelected} />
        <div class="side">
          {tree.value && <Details tree={tree.value} selected={selected} />}
          <RequestList requests={requests.value} onSelect={setSelected} />
        </div>
      </div>
    </main>
  );
}
