// The model, and how it is asked.
import { current, update } from "./chat/conversations";
import { newId } from "./chat/conversation";
import { plural } from "./format";
import { Dialog } from "./parts";
import { models } from "./server_state";
import { set, settings, type Settings } from "./settings";

interface NumberProps {
  label: string;
  field: "temperature" | "topP" | "topK" | "minP" | "repeatPenalty" | "maxTokens" | "seed";
  usual: string; // what the server does where nothing is set
  min: number;
  max?: number;
  step: number;
}

// Its value is the user's while it is edited: "0." is on the way to a number, and none yet.
function NumberField({ label, field, usual, min, max, step }: NumberProps) {
  const change = (input: HTMLInputElement) => {
    if (input.validity.valid) set(field, input.value === "" ? null : input.valueAsNumber);
  };
  return (
    <label>
      {label}
      <input
        type="number"
        placeholder={usual}
        defaultValue={String(settings.value[field] ?? "")}
        min={min}
        max={max}
        step={step}
        onInput={(event) => change(event.currentTarget)}
      />
    </label>
  );
}

function System() {
  const conversation = current.value;
  const change = (system: string) => {
    set("system", system);
    if (conversation) update(conversation.id, (before) => ({ ...before, system }));
  };
  return (
    <label>
      System prompt
      <textarea
        rows={3}
        value={conversation ? conversation.system : settings.value.system}
        onInput={(event) => change(event.currentTarget.value)}
      />
      <small>
        Of this conversation and of new ones. It begins the prompt: to change it is to compute
        everything behind it again.
      </small>
    </label>
  );
}

function Salt() {
  return (
    <label>
      Cache salt
      <span class="row">
        <input
          value={settings.value.cacheSalt}
          maxLength={64}
          placeholder="none: shared with everybody"
          onInput={(event) => set("cacheSalt", event.currentTarget.value)}
        />
        <button type="button" onClick={() => set("cacheSalt", newId())}>
          Make one
        </button>
      </span>
      <small>
        Prompts of different salts share nothing that is cached. Where the server has no keys, the
        tree shows texts to those who know their salt only.
      </small>
    </label>
  );
}

function ModelChoice() {
  return (
    <label>
      Model
      <select
        value={settings.value.model}
        onChange={(event) => set("model", event.currentTarget.value as Settings["model"])}
      >
        <option value="">the server's</option>
        {models.value.map(({ id, meta }) => (
          <option key={id} value={id}>
            {id} (context of {plural(meta.n_ctx, "token")})
          </option>
        ))}
      </select>
    </label>
  );
}

function Thinking() {
  return (
    <label>
      Thinking
      <select
        value={settings.value.thinking}
        onChange={(event) => set("thinking", event.currentTarget.value as Settings["thinking"])}
      >
        <option value="on">on</option>
        <option value="off">off</option>
      </select>
      <small>Of models that think before they answer; off, they answer at once.</small>
    </label>
  );
}

export function SettingsDialog({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Settings" kind="drawer right" onClose={onClose}>
      <div class="fields">
        <ModelChoice />
        <System />
        <Thinking />
        <fieldset>
          <legend>Sampling</legend>
          <NumberField
            label="Temperature"
            field="temperature"
            usual="1"
            min={0}
            max={2}
            step={0.05}
          />
          <NumberField label="Top p" field="topP" usual="1" min={0} max={1} step={0.01} />
          <NumberField label="Top k" field="topK" usual="off" min={0} step={1} />
          <NumberField label="Min p" field="minP" usual="0" min={0} max={1} step={0.01} />
          <NumberField
            label="Repetition penalty"
            field="repeatPenalty"
            usual="1"
            min={0.1}
            max={2}
            step={0.05}
          />
          <NumberField
            label="Longest answer, tokens"
            field="maxTokens"
            usual="to the end of the context"
            min={1}
            step={1}
          />
          <NumberField label="Seed" field="seed" usual="drawn" min={0} step={1} />
        </fieldset>
        <Salt />
      </div>
    </Dialog>
  );
}
