// The list of conversations.
import { useState } from "preact/hooks";
import { Icon } from "../icons";
import { Dialog, IconButton } from "../parts";
import { stop } from "./answer";
import type { Conversation } from "./conversation";
import {
  conversations,
  download,
  openConversation,
  openId,
  remove,
  storageProblem,
  update,
} from "./conversations";

function Rename({ conversation, onDone }: { conversation: Conversation; onDone: () => void }) {
  const [title, setTitle] = useState(conversation.title);
  const done = () => {
    if (title.trim()) update(conversation.id, (before) => ({ ...before, title: title.trim() }));
    onDone();
  };
  return (
    <input
      aria-label="Name of the conversation"
      value={title}
      ref={(input) => input?.focus()}
      onInput={(event) => setTitle(event.currentTarget.value)}
      onBlur={done}
      onKeyDown={(event) => {
        if (event.key === "Enter") done();
        if (event.key === "Escape") onDone();
      }}
    />
  );
}

function ConfirmRemoval({
  conversation,
  onDone,
}: {
  conversation: Conversation;
  onDone: () => void;
}) {
  return (
    <Dialog title="Delete the conversation?" onClose={onDone}>
      <p>“{conversation.title}” is kept in this browser only, and will be gone.</p>
      <div class="row">
        <button
          type="button"
          class="danger"
          onClick={() => {
            stop(conversation.id); // nobody would see what the server still writes
            remove(conversation.id);
            onDone();
          }}
        >
          Delete
        </button>
        <button type="button" onClick={onDone}>
          Keep
        </button>
      </div>
    </Dialog>
  );
}

interface EntryProps {
  conversation: Conversation;
  onPick: () => void;
}

function Entry({ conversation, onPick }: EntryProps) {
  const [doing, setDoing] = useState<"rename" | "remove" | null>(null);
  const done = () => setDoing(null);
  const isOpen = conversation.id === openId.value;
  const title = conversation.title || "New conversation";
  return (
    <li class={isOpen ? "entry open" : "entry"}>
      {doing === "rename" ? (
        <Rename conversation={conversation} onDone={done} />
      ) : (
        <button
          type="button"
          class="title"
          aria-current={isOpen ? "true" : undefined}
          onClick={() => {
            openConversation(conversation.id);
            onPick();
          }}
        >
          {title}
        </button>
      )}
      <span class="entry-actions">
        <IconButton icon="pencil" label={`Rename ${title}`} onClick={() => setDoing("rename")} />
        <IconButton
          icon="download"
          label={`Export ${title} as JSON`}
          onClick={() => download(conversation)}
        />
        <IconButton icon="trash" label={`Delete ${title}`} onClick={() => setDoing("remove")} />
      </span>
      {doing === "remove" && <ConfirmRemoval conversation={conversation} onDone={done} />}
    </li>
  );
}

// `onPick`: something was opened.
export function Sidebar({ onPick }: { onPick: () => void }) {
  return (
    <div class="sidebar">
      <button
        type="button"
        class="new"
        onClick={() => {
          openConversation(null);
          onPick();
        }}
      >
        <Icon name="plus" />
        New conversation
      </button>
      <ul>
        {conversations.value.map((conversation) => (
          <Entry key={conversation.id} conversation={conversation} onPick={onPick} />
        ))}
      </ul>
      <p class="note">
        {storageProblem.value
          ? `This browser keeps nothing: ${storageProblem.value}`
          : "Conversations are kept in this browser only."}
      </p>
    </div>
  );
}
