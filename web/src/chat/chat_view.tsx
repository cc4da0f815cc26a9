// The chat: conversations beside the open one.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../icons";
import { Dialog, useMedia } from "../parts";
import { model } from "../server_state";
import { announcement } from "./answer";
import { Composer } from "./composer";
import { pathOf } from "./conversation";
import { current } from "./conversations";
import { MessageView } from "./message";
import { Sidebar } from "./sidebar";

function Welcome() {
  return (
    <div class="welcome">
      <h2>{model.value?.id ?? "Trellis"}</h2>
      <p>
        Under each answer stands how much of its prompt came from the cache. Edit a message, or ask
        for another answer, to make a branch: what the branches share is computed once. The tree
        shows it.
      </p>
    </div>
  );
}

// Follows the text as it grows, unless the reader has gone up; and goes to its end when `start` changes.
function useFollowing(text: unknown, start: string) {
  const box = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  const toEnd = () => {
    if (isAtEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  };
  useEffect(() => {
    const element = box.current!;
    const note = () => {
      isAtEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < 60;
    };
    element.addEventListener("scroll", note, { passive: true });
    // A phone's keyboard makes the window smaller.
    const observer = new ResizeObserver(toEnd);
    observer.observe(element);
    return () => {
      element.removeEventListener("scroll", note);
      observer.disconnect();
    };
  }, []);
  useLayoutEffect(toEnd, [text]);
  useLayoutEffect(() => {
    isAtEnd.current = true;
    toEnd();
  }, [start]);
  return box;
}

function Messages() {
  const conversation = current.value;
  const box = useFollowing(conversation, `${conversation?.id} ${conversation?.messages.length}`);
  const path = conversation ? pathOf(conversation) : [];
  return (
    <div class="messages" ref={box} tabIndex={0} role="region" aria-label="Messages">
      {path.length === 0 && <Welcome />}
      <ol>
        {conversation &&
          path.map((message) => (
            <MessageView key={message.id} conversation={conversation} message={message} />
          ))}
      </ol>
    </div>
  );
}

export function ChatView() {
  const isWide = useMedia("(min-width: 800px)");
  const [isListOpen, setListOpen] = useState(false);
  return (
    <main class="chat">
      <h1 class="hidden">Chat</h1>
      {isWide ? (
        <nav aria-label="Conversations">
          <Sidebar onPick={() => {}} />
        </nav>
      ) : (
        <button type="button" class="list-button" onClick={() => setListOpen(true)}>
          <Icon name="menu" />
          <span>{current.value?.title || "New conversation"}</span>
        </button>
      )}
      {isListOpen && !isWide && (
        <Dialog title="Conversations" kind="drawer" onClose={() => setListOpen(false)}>
          <Sidebar onPick={() => setListOpen(false)} />
        </Dialog>
      )}
      <div class="conversation">
        <Messages />
        <Composer />
      </div>
      <div class="hidden" role="status">
        {announcement.value}
      </div>
    </main>
  );
}
