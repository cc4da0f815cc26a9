// Small parts that all views use.
import { Component, type ComponentChildren, type FunctionComponent, h } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon, type IconName } from "./icons";

// A view that is drawn again only when `isEqual` denies that its properties are what they were.
export function memo<P extends object>(
  view: FunctionComponent<P>,
  isEqual: (before: P, after: P) => boolean,
) {
  return class extends Component<P> {
    shouldComponentUpdate(next: P) {
      return !isEqual(this.props, next);
    }
    render() {
      return h(view, this.props);
    }
  };
}

interface ButtonProps {
  icon: IconName;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  pressed?: boolean;
}

export function IconButton({ icon, label, onClick, disabled, pressed }: ButtonProps) {
  return (
    <button
      type="button"
      class="icon-button"
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}

// navigator.clipboard is there in secure contexts only, and a server on the local network is none.
async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await copyText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <IconButton icon={copied ? "check" : "copy"} label={copied ? "Copied" : label} onClick={copy} />
  );
}

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  kind?: string;
}

// The browser's own: it keeps the focus inside, closes on Escape, and gives the focus back.
export function Dialog({ title, onClose, children, kind = "" }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
    return () => dialog.current?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      class={kind}
      aria-label={title}
      onClose={onClose}
      onClick={(event) => event.target === dialog.current && onClose()}
    >
      <div class="dialog-body">
        <header>
          <h2>{title}</h2>
          <IconButton icon="close" label="Close" onClick={onClose} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

// Whether the window is so wide; follows it.
export function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const change = () => setMatches(media.matches);
    media.addEventListener("change", change);
    return () => media.removeEventListener("change", change);
  }, [query]);
  return matches;
}
