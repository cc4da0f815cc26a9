// One message, with what it cost under an answer, and what can be done with it.
import { useState } from "preact/hooks";
import { Causes, PromptBar } from "../causes";
import { count, plural, rate, seconds } from "../format";
import { CopyButton, IconButton, memo } from "../parts";
import { answerAgain, isWriting, send } from "./answer";
import { choose, type Conversation, type Message, siblingsOf, type Stats } from "./conversation";
import { update } from "./conversations";
import { Markdown } from "./markdown";

function StatsLine({ stats }: { stats: Stats }) {
  const { promptTokens, cachedTokens, missed, diverged } = stats;
  return (
    <div class="stats">
      <PromptBar cached={cachedTokens} missed={missed} />
      <ul class="list">
        <li class="cause">
          <span class="swatch cached" aria-hidden="true" />
          {count(cachedTokens)} of {plural(promptTokens, "prompt token")} from the cache
        </li>
        <Causes missed={missed} />
        {stats.ttftMs !== null && <li>first token after {seconds(stats.ttftMs)}</li>}
        <li>
          {plural(stats.generatedTokens, "token")}
          {stats.tokensPerSecond !== null && ` at ${rate(stats.tokensPerSecond)}`}
        </li>
      </ul>
      {diverged && (
        <details>
          <summary>left what is cached at token {count(diverged.position)}</summary>
          <dl class="departure">
            <dt>this prompt</dt>
            <dd>{diverged.prompt ?? "not shown"}</dd>
            <dt>cached</dt>
            <dd>
              {diverged.cached ?? "not shown: without a key or a cache salt it may be another's"}
            </dd>
          </dl>
        </details>
      )}
    </div>
  );
}

function Thoughts({ message }: { message: Message }) {
  const isThinking = message.state === "writing" && !message.text;
  return (
    <details class="thoughts" open={isThinking}>
      <summary>{isThinking ? "Thinking…" : "Thoughts"}</summary>
      <Markdown text={message.thoughts} />
    </details>
  );
}

function Editor({ text, onDone }: { text: string; onDone: (text: string | null) => void }) {
  const [draft, setDraft] = useState(text);
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        if (draft.trim()) onDone(draft);
      }}
      onKeyDown={(event) => event.key === "Escape" && onDone(null)}
    >
      <textarea
        aria-label="Edit the message"
        value={draft}
        rows={Math.min(12, draft.split("\n").length + 1)}
        onInput={(event) => setDraft(event.currentTarget.value)}
        ref={(area) => area?.focus()}
      />
      <div class="row">
        <button type="submit" class="primary">
          Send as a branch
        </button>
        <button type="button" onClick={() => onDone(null)}>
          Cancel
        </button>
      </div>
    </form>
  );
}

interface Props {
  conversation: Conversation;
  message: Message;
}

function BranchSwitch({ conversation, message }: Props) {
  const siblings = siblingsOf(conversation, message);
  if (siblings.length < 2) return null;
  const index = siblings.indexOf(message);
  const go = (step: number) => {
    const other = siblings[index + step];
    if (other) update(conversation.id, (before) => choose(before, other));
  };
  return (
    <span class="branches" role="group" aria-label="Branches">
      <IconButton
        icon="previous"
        label="Previous branch"
        disabled={index === 0}
        onClick={() => go(-1)}
      />
      <span>
        {index + 1} / {siblings.length}
      </span>
      <IconButton
        icon="next"
        label="Next branch"
        disabled={index + 1 === siblings.length}
        onClick={() => go(1)}
      />
    </span>
  );
}

const ends: Partial<Record<Message["state"], string>> = {
  stopped: "Stopped.",
  length: "The answer reached its longest length.",
};

function Answer({ message }: { message: Message }) {
  const isWaiting = message.state === "writing" && !message.text && !message.thoughts;
  return (
    <>
      {message.thoughts && <Thoughts message={message} />}
      {isWaiting && <p class="waiting">Waiting for the first token…</p>}
      <Markdown text={message.text} />
      {ends[message.state] && <p class="note">{ends[message.state]}</p>}
      {message.error && (
        <p class="problem" role="alert">
          {message.error}
        </p>
      )}
    </>
  );
}

export const MessageView = memo(
  ({ conversation, message }: Props) => {
    const [isEditing, setEditing] = useState(false);
    const isUser = message.role === "user";
    const isBusy = isWriting(conversation.id);
    const edited = (text: string | null) => {
      setEditing(false);
      if (text !== null) send(text, message.parent);
    };
    return (
      <li class={`message ${message.role}`} aria-busy={message.state === "writing"}>
        <h2 class="hidden">{isUser ? "You" : "Answer"}</h2>
        {isEditing ? (
          <Editor text={message.text} onDone={edited} />
        ) : (
          <div class="text">{isUser ? message.text : <Answer message={message} />}</div>
        )}
        {message.stats && <StatsLine stats={message.stats} />}
        {message.state !== "writing" && !isEditing && (
          <div class="actions">
            <BranchSwitch conversation={conversation} message={message} />
            <CopyButton text={message.text} label="Copy the text" />
            {isUser ? (
              <IconButton
                icon="pencil"
                label="Edit"
                disabled={isBusy}
                onClick={() => setEditing(true)}
              />
            ) : (
              <IconButton
                icon="again"
                label="Answer again"
                disabled={isBusy}
                onClick={() => answerAgain(conversation, message)}
              />
            )}
          </div>
        )}
      </li>
    );
  },
  // A conversation is a new value with every piece of an answer; its other messages are the same.
  (before, after) =>
    before.message === after.message &&
    siblingsOf(before.conversation, before.message).length ===
      siblingsOf(after.conversation, after.message).length,
);
