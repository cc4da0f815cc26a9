// Asks for a key where the server has keys.
import { useState } from "preact/hooks";
import { key, setKey } from "./api";
import { Dialog } from "./parts";

export function KeyDialog({ onClose }: { onClose: () => void }) {
  const [value, setValue] = useState("");
  return (
    <Dialog title="Key" onClose={onClose}>
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          setKey(value.trim());
          onClose();
        }}
      >
        <p>
          {key.value ? "The server does not know this key. " : "This server wants a key. "}
          It is kept until this tab is closed.
        </p>
        <label>
          Key
          <input
            type="password"
            autocomplete="off"
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
        </label>
        <div class="row">
          <button type="submit" class="primary" disabled={!value.trim()}>
            Use this key
          </button>
        </div>
      </form>
    </Dialog>
  );
}
