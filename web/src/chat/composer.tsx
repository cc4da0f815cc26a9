// Where the next message is written, sent, and its answer stopped.
import { useRef, useState } from "preact/hooks";
import { Icon } from "../icons";
import { server } from "../server_state";
import { isWriting, send, stop } from "./answer";
import { pathOf } from "./conversation";
import { current } from "./conversations";

export function Composer() {
  const [draft, setDraft] = useState("");
  const area = useRef<HTMLTextAreaElement>(null);
  const conversation = current.value;
  const isBusy = isWriting(conversation?.id);
  const isReady = server.value.is === "ready";

  const submit = () => {
    if (!draft.trim() || isBusy || !isReady) return;
    send(draft, (conversation && pathOf(conversation).at(-1)?.id) ?? null);
    setDraft("");
    area.current?.focus();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <textarea
        ref={area}
        aria-label="Message"
        aria-describedby="composer-hint"
        placeholder={isReady ? "Ask something" : "The model is not ready yet"}
        rows={1}
        value={draft}
        onInput={(event) => setDraft(event.currentTarget.value)}
        onKeyDown={(event) => {
          // Enter that ends a word of an input method is not for us.
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          submit();
        }}
      />
      <span id="composer-hint" class="hidden">
        Enter sends, Shift and Enter begin a new line.
      </span>
      {isBusy && conversation ? (
        <button
          type="button"
          class="primary round"
          aria-label="Stop"
          title="Stop"
          onClick={() => stop(conversation.id)}
        >
          <Icon name="stop" />
        </button>
      ) : (
        <button
          type="submit"
          class="primary round"
          aria-label="Send"
          title="Send"
          disabled={!draft.trim() || !isReady}
        >
          <Icon name="send" />
        </button>
      )}
    </form>
  );
}
